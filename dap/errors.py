"""Every error of the project, in one tree.

DapError                              500  anything of ours; never raised itself
├── AccessDenied                      403  the key that was sent does not open this
│   └── Unauthenticated               401  no key was sent, or one that is not known
├── InputError                        422  what came in cannot be used
│   ├── EmptyInput                    400  no bytes at all
│   ├── MalformedRequest              400  the request itself (multipart framing, headers) cannot be read
│   ├── UnsupportedMediaType          415  not an image, or an image format that is not decoded here
│   ├── NotAcceptable                 406  no format we can write was asked for
│   ├── UploadTooSlow                 408  the bytes of a body stopped coming, or came too slowly
│   ├── BrokenImage                   422  an image by its first bytes, yet truncated or corrupt
│   ├── InputTooLarge                 413  more bytes than the limit
│   ├── TooManyPixels                 413  more pixels than the limit, told from the header
│   ├── NotAPanorama                  422  neither 2:1 nor placed on the sphere by GPano data
│   ├── FloorNotFound                 422  a camera height was given, and no floor is seen below the camera
│   └── InvalidParameter              422  a parameter has a value that is not one of its values
│       └── ResolutionNotOffered      422  the model sees panoramas at other resolutions than the one asked for
├── Unavailable                       503  try again later
│   ├── NotReady                      503  the model is not warm yet, or the service is going down
│   ├── Overloaded                    429  the queue is full
│   ├── LoadInProgress                409  another model is being loaded already
│   └── DeadlineExceeded              504  the time allowed ran out
├── UnexpectedAnswer                  502  what answered a client does not speak as the service does
├── ModelError                        500  a model cannot be had or used
│   ├── UnknownModel                  404  no such name in the registry, no such file
│   ├── ModelFileMissing              503  known, but its weights are not on this machine
│   ├── ModelFileInvalid              500  the file is not the model it should be (tensors, metadata, hash)
│   └── DownloadFailed                503  the weights could not be fetched
├── EngineError                       500  the engine failed, or answered what is no depth (NaN, infinity)
│   ├── EngineUnavailable             500  the engine's library or device is not here
│   │   └── DeviceLost                500  the device, or what runs on it, is of no use until the process starts anew
│   └── OutOfMemory                   503  the device has no room for this item
├── ExportError                       500  an export failed
│   └── VerificationFailed            500  the exported model disagrees with the network
└── TrainingError                     500  a training run cannot go on
    └── DatasetError                  500  a data set, or a shard of one, is not what it should be

Each class says the HTTP status it maps to, a slug (the last part of the problem's type URI, RFC 9457) and a title.
The message of an instance says what was expected and what came; it is written for the person who made the request and
never holds a path of the server or a stack.
"""

from http import HTTPStatus
from typing import ClassVar


class DapError(Exception):
    """Anything of ours. `str(error)` is the detail: what was expected and what came.

    Attributes:
        request_id: where a service answered so, the id under which its log knows the request; else None.
    """

    request_id: str | None = None
    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"


class AccessDenied(DapError):
    status = HTTPStatus.FORBIDDEN
    slug = "access-denied"
    title = "Not allowed"


class Unauthenticated(AccessDenied):
    status = HTTPStatus.UNAUTHORIZED
    slug = "unauthenticated"
    title = "A key is needed"


class InputError(DapError):
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    slug = "invalid-input"
    title = "The input cannot be used"


class EmptyInput(InputError):
    status = HTTPStatus.BAD_REQUEST
    slug = "empty-input"
    title = "No image was sent"


class MalformedRequest(InputError):
    status = HTTPStatus.BAD_REQUEST
    slug = "malformed-request"
    title = "The request cannot be read"


class UnsupportedMediaType(InputError):
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    slug = "unsupported-media-type"
    title = "Not an image that can be decoded"


class NotAcceptable(InputError):
    status = HTTPStatus.NOT_ACCEPTABLE
    slug = "not-acceptable"
    title = "No such format can be written"


class UploadTooSlow(InputError):
    status = HTTPStatus.REQUEST_TIMEOUT
    slug = "upload-too-slow"
    title = "The upload is too slow"


class BrokenImage(InputError):
    slug = "broken-image"
    title = "The image is truncated or corrupt"


class InputTooLarge(InputError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    slug = "input-too-large"
    title = "Too many bytes"


class TooManyPixels(InputError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    slug = "too-many-pixels"
    title = "Too many pixels"


class NotAPanorama(InputError):
    slug = "not-a-panorama"
    title = "Not an equirectangular panorama"


class FloorNotFound(InputError):
    slug = "floor-not-found"
    title = "There is no floor to measure from"


class InvalidParameter(InputError):
    slug = "invalid-parameter"
    title = "A parameter has no such value"


class ResolutionNotOffered(InvalidParameter):
    slug = "resolution-not-offered"
    title = "The model has no such resolution"


class Unavailable(DapError):
    """Try again later: `retry_after_s`, where known, says when."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    slug = "unavailable"
    title = "Not available now"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(Unavailable):
    slug = "not-ready"
    title = "Not ready"


class Overloaded(Unavailable):
    status = HTTPStatus.TOO_MANY_REQUESTS
    slug = "overloaded"
    title = "Too many requests"


class LoadInProgress(Unavailable):
    status = HTTPStatus.CONFLICT
    slug = "load-in-progress"
    title = "A model is being loaded already"


class DeadlineExceeded(Unavailable):
    status = HTTPStatus.GATEWAY_TIMEOUT
    slug = "deadline-exceeded"
    title = "Out of time"


class UnexpectedAnswer(DapError):
    status = HTTPStatus.BAD_GATEWAY
    slug = "unexpected-answer"
    title = "Not an answer of the service"


class ModelError(DapError):
    slug = "model-error"
    title = "The model cannot be used"


class UnknownModel(ModelError):
    status = HTTPStatus.NOT_FOUND
    slug = "unknown-model"
    title = "No such model"


class ModelFileMissing(ModelError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    slug = "model-file-missing"
    title = "The model's weights are not here"


class ModelFileInvalid(ModelError):
    slug = "model-file-invalid"
    title = "The file is not the model it should be"


class DownloadFailed(ModelError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    slug = "download-failed"
    title = "The model's weights could not be fetched"


class EngineError(DapError):
    slug = "engine-error"
    title = "The engine failed"


class EngineUnavailable(EngineError):
    slug = "engine-unavailable"
    title = "The engine is not available here"


class DeviceLost(EngineUnavailable):
    slug = "device-lost"
    title = "The device is lost"


class OutOfMemory(EngineError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    slug = "out-of-memory"
    title = "The device is out of memory"


class ExportError(DapError):
    slug = "export-failed"
    title = "The export failed"


class VerificationFailed(ExportError):
    slug = "verification-failed"
    title = "The exported model disagrees with the network"


class TrainingError(DapError):
    slug = "training-failed"
    title = "The training cannot go on"


class DatasetError(TrainingError):
    slug = "dataset-invalid"
    title = "The data set is not what it should be"


_MOST_OF_CAUSE = 300


def with_cause(error: BaseException) -> str:
    """The message; of an engine's error with the first line of what the engine's library said, cut to 300 characters.

    For who runs a command, and for the log of the service. What the library says may name files and hosts, so an answer
    of the service leaves it out.
    """
    cause = error.__cause__
    # What an error of ours or of the system says stands in the message already.
    if not isinstance(error, EngineError) or cause is None or isinstance(cause, DapError | OSError):
        return str(error)
    line = str(cause).strip().partition("\n")[0].strip() or type(cause).__name__
    if line in str(error):
        return str(error)
    printable = "".join(character if character.isprintable() else " " for character in line)
    return f"{error} Cause: {printable[:_MOST_OF_CAUSE]}"


def kinds() -> dict[str, type[DapError]]:
    """Every kind of error by its slug."""
    found: dict[str, type[DapError]] = {}
    waiting: list[type[DapError]] = [DapError]
    while waiting:
        kind = waiting.pop()
        found[kind.slug] = kind
        waiting += kind.__subclasses__()
    return found
