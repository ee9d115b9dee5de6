"""The HDF5 encoding: the document's text in the dataset `/document`, the tensors as datasets under `/parameters`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import ConverterError, FormatError
from converter.format.atomic import atomic_path, written_files
from converter.format.digest import ModelDigest
from converter.format.hdf5_values import GROUP, HDF5Values, ValueWriter, opened, plain_dataset
from converter.format.json_encoding import verify_digest
from converter.format.limits import FORMAT
from converter.format.reading import read_document
from converter.format.writing import Pieces, Progress, Values, check_model, document_pieces, example_pieces, parameter_pieces
from converter.ir import Model

DOCUMENT = "document"


def save_hdf5(model: Model, target: str | os.PathLike[str], *, progress: Progress | None = None) -> tuple[Path, ...]:
    """Writes a model as HDF5 and returns the files.

    Parameters are read, written and forgotten one at a time. The path is written atomically; `"-"` is standard output.

    Raises:
        GraphError, ParameterError, FormatError: the model breaks the format's rules; nothing is written.
        ConverterError: the file cannot be written.
    """
    check_model(model)
    digest = ModelDigest(model.graph)
    with atomic_path(target) as temporary, ValueWriter(temporary) as writer:
        def elsewhere(name: str, values: Values) -> Pieces:
            writer.write(name, values.spec, values.pieces())
            yield from ()

        text = b"".join(document_pieces(
            model.graph, parameter_pieces(model.parameters, model.constants, elsewhere, digest, progress),
            example_pieces(model.examples, "base64") if model.examples else None, model.metadata,
            lambda: digest.members(model.constants, model.examples, model.metadata)))
        writer.reserve(len(text))
        writer.file.attrs["format"] = FORMAT
        writer.file.create_dataset(DOCUMENT, data=np.frombuffer(text, np.uint8))
    return written_files(target)


def load_hdf5(path: str | os.PathLike[str], *, verify: bool | None = None) -> Model:
    """The model in an HDF5 file. Parameters stay in the file until they are used; one that was changed by then is an error.

    Args:
        path: the file.
        verify: whether to read every parameter now and compare the model with its digest. None: where the file has one;
            True: the file must have one; False: no.

    Raises:
        FormatError: the file is not a neutral model, or is malformed.
        GraphError, ParameterError: its graph or parameters break the format's rules.
    """
    path = Path(path)
    try:
        text = _document(path)
        parts = read_document(text, ("constant", "alias"))
        model = Model(parts.graph, HDF5Values(path, parts.specs, parts.aliases), parts.examples,
                      parts.metadata, parts.constants)
        verify_digest(model, parts, verify)
    except OSError as error:
        raise FormatError(f"cannot read ({error.strerror or error})", where=str(path)) from error
    except ConverterError as error:
        raise (error if (error.where or "").startswith(str(path)) else error.within(str(path))) from None
    return model


def _document(path: Path) -> bytes:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise FormatError("the file is empty", expected="a neutral model")
    with opened(path) as source:
        if DOCUMENT not in source.file:
            raise FormatError("an HDF5 file, but not a neutral model", expected=f"the dataset /{DOCUMENT}")
        extra = [name for name in source.file if name not in (DOCUMENT, GROUP)]
        if extra:
            raise FormatError(f"objects that the format does not know: {', '.join(map(repr, extra[:5]))}", fix="remove them")
        dataset: Any = plain_dataset(source, source.file, DOCUMENT, f"/{DOCUMENT}")
        if dataset.dtype != np.uint8 or dataset.ndim != 1 or dataset.id.get_storage_size() != dataset.size:
            raise FormatError("the document is not a list of bytes", where=f"/{DOCUMENT}", expected="uint8[bytes]")
        return bytes(dataset[()])


