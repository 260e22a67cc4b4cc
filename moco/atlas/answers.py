"""What the local server answers: the page, thumbnails, pictures, searches.

No path of a file is made from a request: it names rows of the collection and sheets by their number.
"""

import io
import json
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

import numpy as np

from moco.atlas.contents import Contents
from moco.atlas.search import combine
from moco.atlas.thumbnails import Previews, Sheets
from moco.data.decode.decode import decode_file, reason_of
from moco.evaluate.features import Pretrained

MOST_UPLOAD = 32 * 2**20  # [bytes] of a file to search by
MOST_JSON = 2**16  # [bytes] of a search
MOST_EXAMPLES, MOST_FOUND = 200, 1000  # of a search
UPLOADS = 64  # features of uploaded files that are remembered
SHEETS = 256  # sheets that are remembered: about 80 MB
SMALL, LARGE = 256, 1600  # [pixels] longer side of a picture
ROUTE = re.compile(r"(sheet|small|image)/([0-9]{1,9})", re.ASCII)


class Refused(Exception):
    """A request that is not answered, with the status and a reason for the user."""

    def __init__(self, status: HTTPStatus, reason: str):
        super().__init__(reason)
        self.status = status


class Response(NamedTuple):
    """The content of a response."""

    kind: str  # MIME type
    content: bytes
    stays: bool = False  # it is always the same, so that the browser may store it


class Answers:
    """The answers to all requests about one atlas. Any number of threads may ask at once."""

    def __init__(self, contents: Contents, page: str, sheets: Sheets | None, encoder: Pretrained | None):
        self.contents, self.page, self.sheets, self.encoder = contents, page.encode(), sheets, encoder
        collection = contents.collection
        self.pictures = None if collection.images is None else Previews(collection.images, collection.ids)
        self._made: OrderedDict[int, bytes] = OrderedDict()
        self._uploads: OrderedDict[str, np.ndarray] = OrderedDict()  # features, D
        self._sheet_lock, self._encoder_lock = threading.Lock(), threading.Lock()

    def get(self, path: str) -> Response:
        """The answer to GET. `path` is what follows the token. Raises Refused."""
        if path == "":
            return Response("text/html; charset=utf-8", self.page)
        if found := ROUTE.fullmatch(path):
            content = (self._sheet if found[1] == "sheet" else self._picture(found[1]))(int(found[2]))
            return Response("image/webp", content, stays=True)
        raise Refused(HTTPStatus.NOT_FOUND, "there is no such page")

    def most_bytes(self, path: str) -> int:
        """Of the body of a POST. Raises Refused for a path that takes none."""
        if path == "query" and self.encoder is not None:
            return MOST_UPLOAD
        if path == "search":
            return MOST_JSON
        raise Refused(HTTPStatus.NOT_FOUND, "there is no such page")

    def post(self, path: str, body: bytes) -> Response:
        """The answer to POST: `search`, or `query` with a file. Raises Refused."""
        found = self._search(body) if path == "search" else self._encode(body)
        return Response("application/json", json.dumps(found).encode())

    def _sheet(self, number: int) -> bytes:
        if self.sheets is None or number >= len(self.sheets):
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such sheet of thumbnails: reload the page")
        with self._sheet_lock:
            if number not in self._made:
                self._made[number] = self.sheets.sheet(number)
                if len(self._made) > SHEETS:
                    self._made.popitem(last=False)
            self._made.move_to_end(number)
            return self._made[number]

    def _picture(self, name: str) -> Callable[[int], bytes]:
        def read(row: int) -> bytes:
            found = None
            if self.pictures is not None and row < len(self.contents.collection):
                found = self.pictures.read(row, SMALL if name == "small" else LARGE)
            if found is None:
                raise Refused(
                    HTTPStatus.NOT_FOUND,
                    "there is no such image, or it has changed since the server started: start moco atlas again",
                )
            return found

        return read

    def _encode(self, body: bytes) -> dict[str, Any]:
        """Remember the feature of an uploaded file. Its content is kept nowhere."""
        if self.encoder is None:
            raise Refused(
                HTTPStatus.NOT_FOUND,
                "files cannot be searched for without an encoder: give moco atlas a run, or --encoder",
            )
        with self._encoder_lock:
            try:
                pixels = decode_file(io.BytesIO(body))
            except Exception as error:  # damaged files raise nearly everything
                raise Refused(
                    HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"this file cannot be read as an image: {reason_of(error)}"
                ) from error
            feature = self.encoder.embed([pixels], workers=0)[0]
            if not np.isfinite(feature).all():
                raise Refused(
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    "the features of this file are not finite numbers: the weights may be damaged",
                )
            name = secrets.token_urlsafe(12)
            self._uploads[name] = feature
            if len(self._uploads) > UPLOADS:
                self._uploads.popitem(last=False)
        return {"id": name}

    def _search(self, body: bytes) -> dict[str, Any]:
        """Rows and similarities of the images that are nearest to the examples, without the examples."""
        like, unlike, uploads, k = self._parse(body)
        x = self.contents.collection.x
        positives, examples = np.concatenate([x[like], *(one[None] for one in uploads)]), {*like, *unlike}
        if not len(positives):
            raise Refused(HTTPStatus.BAD_REQUEST, "expected at least one image to search for")
        query, most = combine(positives, x[unlike]), min(k + len(examples), len(x))
        values, rows = self.contents.index.nearest(query[None], most)
        pairs = zip(rows[0].tolist(), values[0].tolist(), strict=True)
        return {"found": [[row, round(v, 6)] for row, v in pairs if row >= 0 and row not in examples][:k]}

    def _parse(self, body: bytes) -> tuple[list[int], list[int], list[np.ndarray], int]:
        """The parts of a search: rows, rows, features of uploaded files, number. Raises Refused if one is not valid."""
        try:
            asked = json.loads(body)
            lists, k = [asked[name] for name in ("like", "not", "uploads")], asked["k"]
            if not all(isinstance(one, list) for one in lists) or sum(map(len, lists)) > MOST_EXAMPLES:
                raise ValueError
            n = len(self.contents.collection)
            if not all(type(row) is int and 0 <= row < n for row in lists[0] + lists[1]):
                raise ValueError
            if type(k) is not int or not 0 < k <= MOST_FOUND:
                raise ValueError
            uploads = [self._uploads.get(one) for one in lists[2]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Refused(
                HTTPStatus.BAD_REQUEST, "expected a search: lists of rows and uploads, and how many images to find"
            ) from error
        known = [one for one in uploads if one is not None]
        if len(known) < len(uploads):
            raise Refused(HTTPStatus.GONE, "the server no longer has this file: drop it on the page again")
        return lists[0], lists[1], known, k
