"""What a converted network is: its description, its graph, its pixels and its session."""
