"""Networks of a run, from its folder alone."""

from torch import nn

from nas.config import RunConfig
from nas.data.normalization import Normalization
from nas.errors import DamagedFileError, InputError
from nas.evaluation import ModelSignature, Subject
from nas.files import file_hash
from nas.store.run_folder import RunFolder
from nas.torch_tools import load_weights
from nas.values.records import Candidate
from search_spaces.base import SearchSpace
from search_spaces.errors import SearchSpaceError
from search_spaces.references.reference_models import ReferenceModel


def stored_subject(config: RunConfig, folder: RunFolder, candidate: Candidate) -> Subject:
    """Return a candidate of a run as stages are given it, from the run's folder alone."""
    return Subject(candidate, space_of(config, candidate), stored_signature(folder))


def stored_signature(folder: RunFolder) -> ModelSignature:
    """Return what the networks of a run take and give.

    Raises:
        InputError: If it builds none.
    """
    stored = folder.store.fact("signature")
    if stored is None:
        raise InputError(f"{folder.path}: this run builds no networks")
    return ModelSignature(stored["in_channels"], tuple(stored["image_size"]), stored["n_classes"])


def stored_teacher(config: RunConfig, folder: RunFolder) -> nn.Module:
    """Return the trained teacher of a run, found by its weights' hash: the data need not be there.

    Raises:
        InputError: If there is none, it is an ONNX file, or its weights are not there any more.
    """
    spec, digest = config.teacher, folder.store.fact("teacher_weights")
    if spec is None or digest is None:
        raise InputError(f"{folder.path}: this run has no trained teacher")
    if spec.is_onnx:
        raise InputError(f"{folder.path}: the teacher is an ONNX file already: use {spec.given}")
    path = spec.given or folder.artifacts.with_content("teacher", ".safetensors", digest)
    if path is None or not path.is_file() or file_hash(path) != digest:
        where = spec.given or folder.artifacts.root
        raise InputError(
            f"{where}: the weights of this run's teacher are not there any more (SHA-256 {digest[:12]}...); bring them "
            f"back, or train the teacher again: nas teacher {folder.path / 'config.yaml'} --run-dir {folder.path}"
        )
    signature = stored_signature(folder)
    normalization = Normalization.from_values(**folder.store.fact("normalization"))
    return spec.load(path, signature.in_channels, signature.n_classes, normalization)


def space_of(config: RunConfig, candidate: Candidate) -> SearchSpace:
    """Return the space of one of the run's candidates: the run's, or that of a reference model."""
    name = candidate.genotype.space
    kind = name.removeprefix(ReferenceModel.prefix)
    return config.search_space.instance if kind == name else ReferenceModel(kind)


def drawing_of(config: RunConfig, candidate: Candidate) -> str:
    """Return the architecture of a candidate as SVG; empty for a reference, or a space that draws none."""
    try:
        return space_of(config, candidate).draw(candidate.genotype)
    except (NotImplementedError, SearchSpaceError):
        return ""


def load_candidate(model: nn.Module, folder: RunFolder, candidate: str, training: str) -> None:
    """Load the weights of a training, `"quick"` or `"retrained"`, into a candidate's network.

    Raises:
        DamagedFileError: If they are not what was written, saying what to do.
    """
    path = folder.weights(candidate, training)
    remedy = f"train the candidate again: nas retrain {folder.path} --candidate {candidate} --epochs N"
    try:
        load_weights(model, path)
    except DamagedFileError as error:
        raise DamagedFileError(f"{error}; {remedy}") from error
    except (OSError, RuntimeError) as error:
        raise DamagedFileError(f"{path} does not hold this candidate's weights: {error}; {remedy}") from error
