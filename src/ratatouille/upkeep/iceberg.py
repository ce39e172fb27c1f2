"""An Iceberg table in a folder, without a catalog: written aside, with the paths that it will have when it is renamed.

Iceberg names its files by absolute paths. So the table is told that it lies at its target, and its files are written
aside: `FilesAside` is what stands between the two.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

VERSION_HINT = "version-hint.text"
_TARGET, _ASIDE = "rat.target", "rat.aside"


class FilesAside(PyArrowFileIO):
    """Files of a table at the target, read and written in the folder aside."""

    def new_input(self, location: str) -> PyArrowFile:
        return self._file(location)

    def new_output(self, location: str) -> PyArrowFile:
        return self._file(location)

    def _file(self, location: str) -> PyArrowFile:
        scheme, netloc, path = self.parse_location(location, self.properties)
        target, aside = self.properties[_TARGET], self.properties[_ASIDE]
        if path.startswith(f"{target}/"):
            path = aside + path.removeprefix(target)
        return PyArrowFile(location=location, path=path, fs=self.fs_by_scheme(scheme, netloc))


def write_iceberg(reader: Any, name: str, folder: Path, target: Path) -> None:
    """Write the batches of `reader` as a table into `folder`, which will be renamed to `target`."""
    with tempfile.TemporaryDirectory(prefix="rat-iceberg-") as scratch:
        properties = {
            "warehouse": scratch,
            "py-io-impl": f"{__name__}.{FilesAside.__name__}",
            _TARGET: str(target),
            _ASIDE: str(folder),
        }
        catalog = InMemoryCatalog("export", **properties)
        try:
            space = name.partition(".")[0]
            catalog.create_namespace(space)
            table = catalog.create_table(name, schema=reader.schema, location=str(target))
            table.append(reader)
            newest = Path(catalog.load_table(name).metadata_location).name
        finally:
            catalog.close()
    # How readers without a catalog find the newest metadata.
    (folder / "metadata" / VERSION_HINT).write_text(newest.removesuffix(".metadata.json"), encoding="utf-8")
