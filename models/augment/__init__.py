"""What training does to an image before the network sees it."""
