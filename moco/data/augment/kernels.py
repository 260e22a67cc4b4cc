"""Compiled crops and colour changes: Pillow's arithmetic bit for bit, about five times as fast. Called by cpu.py.

Pixels are bytes, interleaved: rows of RGB RGB RGB ... . Integers wrap at 32 bits where Pillow's do. Importing this
module compiles it, once per machine: about twenty seconds. numba caches the result.
"""

# The types are numba's: those of the entries are in their signatures.
# pyright: basic, reportMissingParameterType=false, reportCallIssue=false, reportArgumentType=false

import inspect

import numpy as np
from numba import boolean, float32, float64, int32, int64, njit, uint8, uint16, uint32, uint64, uintp, void

BRIGHTNESS, CONTRAST, SATURATION, HUE, GREY, BLUR, SOLARIZE = range(7)  # changes of a view; -1: none
# A view is a row of numbers, its program. The index of each number in it:
TRIES, STEPS = 10, 7
AREA = 0  # share of the image, for each try
RATIO = AREA + TRIES  # width / height, for each try
TOP, LEFT, FLIP, LARGER = range(RATIO + TRIES, RATIO + TRIES + 4)  # in [0, 1); may a crop be larger than its image?
LOWEST, HIGHEST = LARGER + 1, LARGER + 2  # ratio that is allowed
STEP = HIGHEST + 1  # what is done to the colours, in order
FACTOR = STEP + STEPS
REACH, FULL, EDGE = range(FACTOR + STEPS, FACTOR + STEPS + 3)  # of the blur's box; see colour.py
UPSIDE_DOWN, TURNS = EDGE + 1, EDGE + 2  # after the crop: flipped vertically? then counterclockwise quarter turns
LENGTH = TURNS + 1
BLOCK = 1024  # pixels whose colours are changed at a time: their floats stay in the first cache
PRECISION = 22  # bits of a weight in resampling, after the point (Pillow: 32 - 8 - 2)
HALF = 1 << (PRECISION - 1)

bytes_1d, bytes_2d, bytes_3d = uint8[::1], uint8[:, ::1], uint8[:, :, ::1]
floats = float32[::1]
# Without "contract", which would round a * b + c once where Pillow rounds twice. No number here is NaN or infinite.
OPTIONS = {"nogil": True, "fastmath": {"nnan", "ninf", "nsz"}, "error_model": "numpy"}


def inner(function):
    """Compile the function as a part of its callers."""
    return njit(**OPTIONS)(inspect.unwrap(function))  # of the shape checks that tests put around every function


def entry(signature):
    """Compile the function now, and cache it with all that it calls."""
    return lambda function: njit(signature, cache=True, **OPTIONS)(inspect.unwrap(function))


# --- crop and resize ------------------------------------------------------------------------------------------------


@inner
def weights(n_in, start, stop, n_out, first, count, weight):
    """Pillow's antialiased bilinear filter: for each output pixel the first input pixel, how many, and their weights.

    A triangle as wide as 2 output pixels (2 input pixels when enlarging), cut off at the border. The output shows the
    input from `start` to `stop`, which may lie within a pixel.
    """
    scale = (stop - start) / n_out
    reach = max(scale, 1.0)
    for x in range(n_out):
        centre = start + (x + 0.5) * scale
        low, high = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), n_in)
        total = 0.0
        for k in range(high - low):
            total += max(1.0 - abs((k + low - centre + 0.5) * (1.0 / reach)), 0.0)
        for k in range(weight.shape[1]):
            weight[x, k] = 0
        last = 0
        for k in range(high - low):
            share = max(1.0 - abs((k + low - centre + 0.5) * (1.0 / reach)), 0.0) / total
            weight[x, k] = int32(0.5 + share * (1 << PRECISION))
            if weight[x, k]:
                last = k
        first[x], count[x] = low, last + 1


@inner
def _sum_of_2(a, b, u, v, out):
    for i in range(len(out)):
        out[i] = (int32(a[i]) * u + int32(b[i]) * v + int32(HALF)) >> int32(PRECISION)


@inner
def _sum_of_3(a, b, c, u, v, w, out):
    for i in range(len(out)):
        out[i] = (int32(a[i]) * u + int32(b[i]) * v + int32(c[i]) * w + int32(HALF)) >> int32(PRECISION)


@inner
def _add_4(a, b, c, d, t, u, v, w, total):
    for i in range(len(total)):
        total[i] += int32(a[i]) * t + int32(b[i]) * u + int32(c[i]) * v + int32(d[i]) * w


@inner
def _rounded(total, out):
    for i in range(len(out)):
        out[i] = total[i] >> int32(PRECISION)


@inner
def resample(rows, n_out, begin, out, reverse):
    """Resize along the first axis: n_in x n bytes to n_out x n, of which `out` gets those from `begin` on.

    The last one comes first if `reverse`.
    """
    _resample_part(rows, 0.0, float64(rows.shape[0]), n_out, begin, out, reverse)


@inner
def _resample_part(rows, start, stop, n_out, begin, out, reverse):
    """The same for the part of the first axis from `start` to `stop`, which may lie within a pixel."""
    n_in, wanted, n = rows.shape[0], out.shape[0], rows.shape[1]
    first, count = np.empty(n_out, np.int32), np.empty(n_out, np.int32)
    weight = np.empty((n_out, int(2 * max((stop - start) / n_out, 1.0)) + 8), np.int32)
    weights(n_in, start, stop, n_out, first, count, weight)
    total = np.empty(n, np.int32)
    for y in range(wanted):
        a, k, w = first[begin + y], count[begin + y], weight[begin + y]
        to = out[wanted - 1 - y if reverse else y]
        if k == 1:
            to[:] = rows[a]
        elif k == 2:
            _sum_of_2(rows[a], rows[a + 1], w[0], w[1], to)
        elif k == 3:
            _sum_of_3(rows[a], rows[a + 1], rows[a + 2], w[0], w[1], w[2], to)
        else:
            total[:] = HALF
            for j in range(0, k, 4):  # weights beyond the last are 0
                b, c, d = min(a + j + 1, n_in - 1), min(a + j + 2, n_in - 1), min(a + j + 3, n_in - 1)
                _add_4(rows[a + j], rows[b], rows[c], rows[d], w[j], w[j + 1], w[j + 2], w[j + 3], total)
            _rounded(total, to)


@inner
def _copy(a, out):
    for i in range(len(out)):
        out[i] = a[i]


@inner
def _pixel(row, x):
    return uint64(
        uint32(row[3 * x]) | uint32(uint32(row[3 * x + 1]) << uint32(8)) | uint32(uint32(row[3 * x + 2]) << uint32(16))
    )


@inner
def _words(a, b, c, d, e, f, g, h, first, second, third):
    """The x-th pixels of eight rows, 24 bytes, in three words."""
    for x in range(len(first)):
        split, cut = _pixel(c, x), _pixel(f, x)
        first[x] = _pixel(a, x) | (_pixel(b, x) << uint64(24)) | (split << uint64(48))
        second[x] = (split >> uint64(16)) | (_pixel(d, x) << uint64(8)) | (_pixel(e, x) << uint64(32))
        second[x] |= cut << uint64(56)
        third[x] = (cut >> uint64(8)) | (_pixel(g, x) << uint64(16)) | (_pixel(h, x) << uint64(40))


@inner
def _turned(image, top, left, h, w):
    """The transpose of a box of `image`: w x 3 h bytes, rounded up to a multiple of 24; those beyond 3 h mean nothing.

    Eight rows at a time: loads then lie side by side, and stores are of whole words.
    """
    n, m, last, stride = 3 * left, 3 * (left + w), top + h - 1, 3 * ((h + 7) // 8)
    words = np.empty(w * stride, np.uint64)
    first, second, third = np.empty(w, np.uint64), np.empty(w, np.uint64), np.empty(w, np.uint64)
    for y in range(0, h, 8):
        at = top + y
        _words(
            image[at, n:m], image[min(at + 1, last), n:m], image[min(at + 2, last), n:m],
            image[min(at + 3, last), n:m], image[min(at + 4, last), n:m], image[min(at + 5, last), n:m],
            image[min(at + 6, last), n:m], image[min(at + 7, last), n:m], first, second, third,
        )  # fmt: skip
        to = uintp(3 * (y // 8))
        for x in range(w):
            words[to], words[to + uintp(1)], words[to + uintp(2)] = first[x], second[x], third[x]
            to += uintp(stride)
    return words.view(np.uint8).reshape(w, 8 * stride)


@inner
def _cut(image, top, left, out):
    """The box of `image` with that corner and the size of `out`, h x 3 w bytes; black outside of the image."""
    height, width = image.shape[0], image.shape[1] // 3
    h, w = out.shape[0], out.shape[1] // 3
    before, after = min(max(-left, 0), w), min(max(width - left, 0), w)  # columns of the box that are in the image
    for y in range(h):
        row = out[y]
        if 0 <= top + y < height and before < after:
            row[: 3 * before] = 0
            row[3 * after :] = 0
            _copy(image[top + y, 3 * (left + before) : 3 * (left + after)], row[3 * before : 3 * after])
        else:
            row[:] = 0


@inner
def crop(image, top, left, h, w, flip, out):
    """A box of `image`, H x 3 W bytes, resized to `out`, S x 3 S, and mirrored if `flip`: as Pillow 13 resizes a crop.

    It resizes along the rows first, rounds, and then along the columns; the other way where those shrink more than
    twice as much (found by trying; tests/data/augment/test_kernels.py).
    """
    size = len(out)
    columns_first = h > size and h - size > 2 * (w - size)
    if columns_first or top < 0 or left < 0 or top + h > image.shape[0] or 3 * (left + w) > image.shape[1]:
        box = np.empty((h, 3 * w), np.uint8)
        _cut(image, top, left, box)
        image, top, left = box, 0, 0
    if columns_first:
        columns = np.empty((size, 3 * w), np.uint8)
        resample(image, size, 0, columns, False)
        turned = _turned(columns, 0, 0, size, w)
        both = np.empty((size, turned.shape[1]), np.uint8)
        resample(turned, size, 0, both, flip)
        both = _turned(both, 0, 0, size, size)
        for y in range(size):
            _copy(both[y], out[y])
    else:
        turned = _turned(image, top, left, h, w)
        rows = np.empty((size, turned.shape[1]), np.uint8)
        resample(turned, size, 0, rows, flip)
        _along_columns(rows, h, size, 0, out)


@inner
def crop_part(image, top, left, bottom, right, flip, out):
    """`crop` of a box whose sides may lie within a pixel, along the rows first; it sees no pixel outside of the box."""
    y, x = int(np.floor(top)), int(np.floor(left))
    h, w = int(np.ceil(bottom)) - y, int(np.ceil(right)) - x
    box = np.empty((h, 3 * w), np.uint8)
    _cut(image, y, x, box)
    turned = _turned(box, 0, 0, h, w)
    rows = np.empty((len(out), turned.shape[1]), np.uint8)
    _resample_part(turned, left - x, right - x, len(out), 0, rows, flip)
    _part_along_columns(rows, h, top - y, bottom - y, len(out), 0, out)


@inner
def _along_columns(rows, h, n_out, begin, out):
    """Of what was resized along the rows, and is turned, the columns from h to n_out pixels; `out` gets a part."""
    _part_along_columns(rows, h, 0.0, float64(h), n_out, begin, out)


@inner
def _part_along_columns(rows, h, start, stop, n_out, begin, out):
    """The same for the part of the columns from `start` to `stop`."""
    size = len(out)
    turned = _turned(rows, 0, 0, len(rows), h)
    if turned.shape[1] == out.shape[1]:
        _resample_part(turned, start, stop, n_out, begin, out, False)
        return
    both = np.empty((size, turned.shape[1]), np.uint8)
    _resample_part(turned, start, stop, n_out, begin, both, False)
    for y in range(size):
        _copy(both[y], out[y])


@inner
def turn(pixels, upside_down, turns):
    """Flip S x 3 S bytes vertically, then turn them counterclockwise by `turns` quarter turns."""
    size, before = len(pixels), pixels.copy()
    for y in range(size):
        for x in range(size):
            if turns == 0:
                row, column = y, x
            elif turns == 1:
                row, column = x, size - 1 - y
            elif turns == 2:
                row, column = size - 1 - y, size - 1 - x
            else:
                row, column = size - 1 - x, y
            row = size - 1 - row if upside_down else row
            for c in range(3):
                pixels[y, 3 * x + c] = before[row, 3 * column + c]


@inner
def _box_of(program, height, width):
    """What to crop, by augment.crop_boxes: (top, left, h, w)."""
    inside, h, w = not program[LARGER], 0, 0
    for k in range(TRIES):
        area, ratio = height * width * program[AREA + k], program[RATIO + k]
        h, w = int(np.rint(np.sqrt(area / ratio))), int(np.rint(np.sqrt(area * ratio)))
        if h > 0 and w > 0 and not (inside and (h > height or w > width)):
            down, right = height - h, width - w
            top = min(down, 0) + int(np.floor(program[TOP] * (abs(down) + 1)))
            return top, min(right, 0) + int(np.floor(program[LEFT] * (abs(right) + 1))), h, w
    ratio = width / height  # none fits: the largest central one
    h = int(np.rint(width / program[LOWEST])) if ratio < program[LOWEST] else height
    w = int(np.rint(height * program[HIGHEST])) if ratio > program[HIGHEST] else width
    return (height - h) // 2, (width - w) // 2, h, w


# --- colours --------------------------------------------------------------------------------------------------------


@inner
def _load(plane, x):
    for i in range(len(x)):
        x[i] = plane[i]


@inner
def _store(x, plane):
    for i in range(len(x)):
        plane[i] = uint8(int32(x[i]))


@inner
def _apart(pixels, planes):
    red, green, blue = planes[0], planes[1], planes[2]
    for i in range(len(red)):
        red[i], green[i], blue[i] = pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]


@inner
def _together(planes, pixels):
    red, green, blue = planes[0], planes[1], planes[2]
    for i in range(len(red)):
        pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2] = red[i], green[i], blue[i]


@inner
def _luma(red, green, blue):
    """Pillow's convert("L"); exact, as 255 * 2**16 + 2**15 is below 2**24."""
    total = red * float32(19595) + green * float32(38470) + blue * float32(7471) + float32(0x8000)
    return float32(int32(total * float32(2**-16)))


@inner
def _blend(dull, x, factor):
    """Pillow's Image.blend: from `dull` towards x and past it, cut to bytes."""
    mixed = dull + (x - dull) * factor
    return float32(int32(min(max(mixed, float32(0)), float32(255))))


@inner
def _sum_of_luma_of(red, green, blue):
    total = int32(0)
    for i in range(len(red)):
        total += int32(_luma(red[i], green[i], blue[i]))
    return total


@inner
def _towards(dull, factor, red, green, blue):
    """Brightness and contrast."""
    for i in range(len(red)):
        red[i], green[i], blue[i] = (
            _blend(dull, red[i], factor), _blend(dull, green[i], factor), _blend(dull, blue[i], factor),
        )  # fmt: skip


@inner
def _saturation(factor, red, green, blue):
    for i in range(len(red)):
        grey = _luma(red[i], green[i], blue[i])
        red[i], green[i], blue[i] = (
            _blend(grey, red[i], factor), _blend(grey, green[i], factor), _blend(grey, blue[i], factor),
        )  # fmt: skip


@inner
def _grey(red, green, blue):
    for i in range(len(red)):
        red[i] = green[i] = blue[i] = _luma(red[i], green[i], blue[i])


@inner
def _solarize(x):
    for i in range(len(x)):
        x[i] = x[i] if x[i] < float32(128) else float32(255) - x[i]


@inner
def _lost(value, depth, share):
    """A channel, which lies below `value` by `share` of the depth; exact, as 255**3 is below 2**24."""
    lost = min(max(share, float32(0)), float32(255)) * depth
    return value - float32(int32(lost * float32(1 / (255 * 255)) + float32(0.5)))  # as if divided: all were tried


@inner
def _hue(shift, red, green, blue, hues, saturations, scratch):
    """Turned by shift / 255 of the colour circle; the tables are those of colour.py."""
    value, place, found = scratch
    for i in range(len(red)):
        r, g, b = red[i], green[i], blue[i]
        v = max(r, max(g, b))
        chroma = v - min(r, min(g, b))
        lead = g - b if r == v else (b - r if g == v else r - g)
        sector = float32(0) if r == v else (float32(1) if g == v else float32(2))
        value[i] = v
        place[i] = uint32(int32(sector * float32(511) + lead + float32(255))) << uint32(16)
        place[i] |= uint32(int32(chroma * float32(256) + v))
    for i in range(len(red)):
        found[i] = uint16(hues[place[i] >> uint32(8)]) | (uint16(saturations[place[i] & uint32(0xFFFF)]) << uint16(8))
    for i in range(len(red)):
        h = float32(uint8(found[i])) + shift
        angle = (h - float32(256) * float32(int32(h * float32(1 / 256)))) * float32(6)  # 255 is a sixth of the circle
        depth = float32(uint8(found[i] >> uint16(8))) * value[i]
        red[i] = _lost(value[i], depth, float32(510) - abs(angle - float32(765)))
        green[i] = _lost(value[i], depth, abs(angle - float32(510)) - float32(255))
        blue[i] = _lost(value[i], depth, abs(angle - float32(1020)) - float32(255))


@inner
def _box_of_3(a, b, c, full, edge, out):
    for i in range(len(out)):
        ends = uint32(uint32(a[i]) + uint32(c[i]))
        out[i] = uint32(uint32(b[i]) * full + ends * edge + uint32(1 << 23)) >> uint32(24)


@inner
def _box_of_5(a, b, c, d, e, full, edge, out):
    for i in range(len(out)):
        ends, inner = uint32(uint32(a[i]) + uint32(e[i])), uint32(uint32(b[i]) + uint32(c[i]) + uint32(d[i]))
        out[i] = uint32(inner * full + ends * edge + uint32(1 << 23)) >> uint32(24)


@inner
def _add(a, total):
    for i in range(len(total)):
        total[i] += uint32(a[i])


@inner
def _box_of_sums(a, inner, c, full, edge, out):
    for i in range(len(out)):
        ends = uint32(uint32(a[i]) + uint32(c[i]))
        out[i] = uint32(inner[i] * full + ends * edge + uint32(1 << 23)) >> uint32(24)


@inner
def _box(padded, reach, step, full, edge, out):
    """A box blur with softer ends: `full` [2**-24] counts each inner pixel, of which are 2 reach + 1, `edge` the ends.

    Pixels are `step` bytes apart; `padded` begins reach + 1 pixels before `out`.
    """
    n = len(out)
    a, b, c = padded[:n], padded[step : step + n], padded[2 * step : 2 * step + n]
    if reach == 0:
        _box_of_3(a, b, c, full, edge, out)
    elif reach == 1:
        _box_of_5(a, b, c, padded[3 * step : 3 * step + n], padded[4 * step : 4 * step + n], full, edge, out)
    else:
        total, far = np.empty(BLOCK, np.uint32), 2 * (reach + 1) * step
        for at in range(0, n, BLOCK):
            end = min(at + BLOCK, n)
            inner = total[: end - at]
            inner[:] = 0
            for k in range(step, far, step):
                _add(padded[k + at : k + end], inner)
            _box_of_sums(padded[at:end], inner, padded[far + at : far + end], full, edge, out[at:end])


@inner
def _blur(plane, reach, full, edge):
    """Pillow's GaussianBlur of one channel, in place: three box blurs along the rows, then three along the columns."""
    height, width = plane.shape
    margin = reach + 1
    end, stride = margin + width, width + 2 * margin
    here, there = np.empty((height + 2 * margin, stride), np.uint8), np.empty((height + 2 * margin, stride), np.uint8)
    for y in range(height):
        _copy(plane[y], here[margin + y, margin:end])
    first, last = margin * stride, (margin + height) * stride
    for _ in range(3):
        for y in range(margin, margin + height):
            row = here[y]
            for x in range(margin):
                row[x], row[end + x] = row[margin], row[end - 1]
        _box(here.reshape(-1)[first:last], reach, 1, full, edge, there.reshape(-1)[first + margin : last - margin])
        here, there = there, here
    for _ in range(3):
        for y in range(margin):
            _copy(here[margin], here[y])
            _copy(here[margin + height - 1], here[margin + height + y])
        _box(here.reshape(-1), reach, stride, full, edge, there.reshape(-1)[first:last])
        here, there = there, here
    for y in range(height):
        _copy(here[margin + y, margin:end], plane[y])


@inner
def _sum_of_luma(pixels):
    total = 0
    for i in range(len(pixels) // 3):
        r, g, b = int32(pixels[3 * i]), int32(pixels[3 * i + 1]), int32(pixels[3 * i + 2])
        total += (r * int32(19595) + g * int32(38470) + b * int32(7471) + int32(0x8000)) >> int32(16)
    return total


@inner
def _apply(step, factor, mean, red, green, blue, hues, saturations, scratch):
    if step == BRIGHTNESS:
        _towards(float32(0), factor, red, green, blue)
    elif step == CONTRAST:
        _towards(mean, factor, red, green, blue)
    elif step == SATURATION:
        _saturation(factor, red, green, blue)
    elif step == HUE:
        _hue(factor, red, green, blue, hues, saturations, scratch)
    elif step == GREY:
        _grey(red, green, blue)
    elif step == SOLARIZE:
        _solarize(red)
        _solarize(green)
        _solarize(blue)


@inner
def change(image, program, hues, saturations):
    """Change the colours of one view, S x 3 S bytes, in place.

    Block by block, in stretches that begin where the whole image is needed: for the mean of contrast, and for the blur.
    """
    height, n = len(image), image.size // 3
    pixels, planes = image.reshape(-1), np.empty((3, n), np.uint8)  # one after the other, and channel by channel
    red, green, blue = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    steps, factors = np.empty(STEPS, np.int32), np.empty(STEPS, np.float32)
    count, grey, start = 0, False, 0
    for j in range(STEPS):
        step = int(program[STEP + j])
        if step >= 0 and not (grey and step in (SATURATION, HUE)):  # a grey image has neither
            steps[count], factors[count] = step, float32(program[FACTOR + j])
            count += 1
        grey = grey or step == GREY  # which comes before the blur
    if count == 0:
        return
    scratch = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.uint32), np.empty(BLOCK, np.uint16)  # of the hue
    _apart(pixels, planes)
    total = _sum_of_luma(pixels) if steps[0] == CONTRAST else 0
    while start < count:
        stop, mean = start + 1, float32((2 * total + n) // (2 * n))  # int(mean + 0.5)
        if steps[start] == BLUR:
            for c in range(1 if grey else 3):
                _blur(planes[c].reshape(height, -1), int(program[REACH]), uint32(program[FULL]), uint32(program[EDGE]))
            if grey:
                _copy(planes[0], planes[1])
                _copy(planes[0], planes[2])
            start = stop
            continue
        while stop < count and steps[stop] != CONTRAST and steps[stop] != BLUR:
            stop += 1
        total = 0
        for at in range(0, n, BLOCK):
            end = min(at + BLOCK, n)
            r, g, b = red[: end - at], green[: end - at], blue[: end - at]
            _load(planes[0, at:end], r)
            _load(planes[1, at:end], g)
            _load(planes[2, at:end], b)
            for j in range(start, stop):
                _apply(steps[j], factors[j], mean, r, g, b, hues, saturations, scratch)
            _store(r, planes[0, at:end])
            _store(g, planes[1, at:end])
            _store(b, planes[2, at:end])
            if stop < count and steps[stop] == CONTRAST:
                total += _sum_of_luma_of(r, g, b)
        start = stop
    _together(planes, pixels)


# --- views ----------------------------------------------------------------------------------------------------------


@inner
def _finish(program, coloured, hues, saturations, out):
    """Flip a crop vertically and turn it, and change its colours."""
    if program[UPSIDE_DOWN] > 0 or program[TURNS] > 0:
        turn(out, program[UPSIDE_DOWN] > 0, int(program[TURNS]))
    if coloured:
        change(out, program, hues, saturations)


@entry(void(bytes_2d, float64[::1], boolean, bytes_1d, bytes_1d, bytes_2d))
def view(image, program, coloured, hues, saturations, out):
    """A view of an image, H x 3 W bytes, into `out`, S x 3 S: the crop alone, or also its colours."""
    top, left, h, w = _box_of(program, image.shape[0], image.shape[1] // 3)
    crop(image, top, left, h, w, program[FLIP] > 0, out)
    _finish(program, coloured, hues, saturations, out)


@entry(void(bytes_2d, float64[::1], float64[::1], boolean, bytes_1d, bytes_1d, bytes_2d))
def view_of_part(image, box, program, coloured, hues, saturations, out):
    """`view`, but of the box (top, left, bottom, right) of an image, whose sides may lie within a pixel."""
    crop_part(image, box[0], box[1], box[2], box[3], program[FLIP] > 0, out)
    _finish(program, coloured, hues, saturations, out)


@entry(void(bytes_3d, int64[::1], float64[:, ::1], boolean, bytes_1d, bytes_1d, bytes_3d))
def write_views(images, ids, programs, coloured, hues, saturations, out):
    """`view` of each of `ids` of images of one size."""
    for i in range(len(ids)):
        view(images[ids[i]], programs[i], coloured, hues, saturations, out[i])


@entry(void(bytes_2d, int64, int64, int64, int64, bytes_2d))
def central(image, height, width, top, left, out):
    """Of `image`, H x 3 W bytes, resized to height x width, the box at (top, left) that `out`, S x 3 S, has room for.

    Along the rows first; see `crop`.
    """
    h = image.shape[0]
    turned = _turned(image, 0, 0, h, image.shape[1] // 3)
    rows = np.empty((len(out), turned.shape[1]), np.uint8)
    resample(turned, width, left, rows, False)
    _along_columns(rows, h, height, top, out)


@entry(void(bytes_2d, floats, floats, float32[:, ::1]))
def normalize(pixels, shift, scale, out):
    """(pixels - shift) * scale, a row of each at a time."""
    for y in range(len(pixels)):
        for i in range(pixels.shape[1]):
            out[y, i] = (float32(pixels[y, i]) - shift[i]) * scale[i]
