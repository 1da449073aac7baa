"""Zips a function's binary as Lambda takes it: the binary, the zip."""
import sys
import zipfile

entry = zipfile.ZipInfo("bootstrap")
entry.external_attr = 0o100755 << 16
with open(sys.argv[1], "rb") as binary, zipfile.ZipFile(sys.argv[2], "w") as archive:
    archive.writestr(entry, binary.read(), zipfile.ZIP_DEFLATED, 1)
