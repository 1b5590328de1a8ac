"""Kinds of files that aren't text, known by their first bytes."""

BEGINNINGS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    **{b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)},
    b"\xfd7zXZ\0": "xz",
    b"PK\x03\x04": "zip",
    b"%PDF-": "PDF",
    b"PAR1\x15": "Parquet",
    b"ARROW1\0": "Arrow",
    b"\x89HDF": "HDF5",
    b"SQLite format 3\0": "SQLite",
    b"\x7fELF": "a program",
}
HEAD_BYTES = max(map(len, BEGINNINGS))


def kind_by_content(head: bytes) -> str:
    """Return the kind of a file that isn't text; empty for all others."""
    return next((kind for start, kind in BEGINNINGS.items() if head.startswith(start)), "")
