"""Makes the smallest wheel of the name and version that the file's name has."""
import pathlib
import sys
import zipfile

path = pathlib.Path(sys.argv[1])
name, version = path.name.split("-")[:2]
info = f"{name}-{version}.dist-info"
files = {
    f"{name}.py": "",
    f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
path.parent.mkdir(parents=True, exist_ok=True)
with zipfile.ZipFile(path, "w") as archive:
    for file, text in [*files.items(), (f"{info}/RECORD", record)]:
        archive.writestr(file, text)
