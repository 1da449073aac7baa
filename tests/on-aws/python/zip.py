"""Zips a function's binary as Lambda takes it: the binary (or a zip that has it), the zip, and what
is written behind the binary, which runs the same."""
import sys
import zipfile

source, target, mark = sys.argv[1], sys.argv[2], "".join(sys.argv[3:])
if zipfile.is_zipfile(source):
    code = zipfile.ZipFile(source).read("bootstrap")
else:
    with open(source, "rb") as binary:
        code = binary.read()
entry = zipfile.ZipInfo("bootstrap")
entry.external_attr = 0o100755 << 16
with zipfile.ZipFile(target, "w") as archive:
    archive.writestr(entry, code + mark.encode(), zipfile.ZIP_DEFLATED, 1)
