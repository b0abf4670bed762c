"""What files are that are no checkpoint of the format somebody took them for, by first bytes."""

LENGTH = 40  # bytes that tell
TEXT = b"\t\n\r" + bytes(range(32, 127))
KNOWN = {
    b"PK\x03\x04": "a zip archive, as PyTorch and NumPy write (`relume convert` takes PyTorch's)",
    b"\x80": "a Python pickle, as PyTorch wrote (`relume convert` takes those)",
    b"\x12\x01\x00\x00\x00\x00\x00\x00": "an MXNet .params file",
    b"\xfd7zX": "xz-compressed data",
    b"\x1f\x8b": "gzip-compressed data",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89HDF": "an HDF5 file: a Keras checkpoint?",
    b"version https://git-lfs": "a Git LFS pointer: `git lfs pull` fetches the file",
    b"<": "text: a web page in place of the file?",
    b"{": "text: a symbol file?",
}


def described(head: bytes) -> str:
    """Return what a file that begins so is, or else its first bytes."""
    if not head:
        return "an empty file"
    if head[:1] == b"\x08" and head[2:3] == b"\x12":  # ir_version, then a string's length
        return "an ONNX file, which a conversion writes"
    found = next((what for magic, what in KNOWN.items() if head.startswith(magic)), None)
    if found is None and len(head) >= 8 and all(one in TEXT for one in head):
        return "text"
    return found or f"bytes {head[:8].hex(' ')}"
