"""Images as people have them: each mode, depth, ground and orientation gives the pixels that it should, or is named."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from lit_core.errors import UserError
from lit_valuation.data.images import decoded_image
from lit_valuation.sources import ImageFolder

RAMP = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)
DISC = np.hypot(*np.mgrid[-3.5:4, -3.5:4]) < 3


def file(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def deep(values, kind, white=None):
    """Return what is read of a TIFF or PNG of these numbers, as an array."""
    return np.asarray(decoded_image(file(Image.fromarray(values), kind), "L", white=white))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_cut_off(kind):
    values = RAMP.astype(np.uint16) * 257
    np.testing.assert_array_equal(deep(values, kind), RAMP)
    np.testing.assert_array_equal(deep((RAMP.astype(np.uint16) * 16), kind, white=4080), RAMP)


@pytest.mark.parametrize("values", [RAMP / 255.0, RAMP.astype(np.int32) * 1000], ids=["floats", "32 bits"])
def test_what_has_no_known_white_is_refused_until_it_is_given(values):
    values = values.astype(np.float32) if values.dtype.kind == "f" else values
    with pytest.raises(ValueError, match="give `white`"):
        deep(values, "TIFF")
    np.testing.assert_array_equal(deep(values, "TIFF", white=float(values.max())), RAMP)
    with pytest.raises(ValueError, match="but `white` is"):
        deep(values, "TIFF", white=float(values.max()) / 2)


@pytest.mark.parametrize("wrong", [-0.5, float("nan"), float("inf")])
def test_a_float_that_is_no_pixel_is_refused(wrong):
    values = (RAMP / 255).astype(np.float32)
    values[3, 3] = wrong
    with pytest.raises(ValueError, match="pixels run from"):
        deep(values, "TIFF", white=1)


def drawn_on_nothing(mode):
    """Return a black disc on a transparent ground whose hidden colour is black, too."""
    alpha = (DISC * 255).astype(np.uint8)
    if mode == "P":
        image = Image.fromarray((~DISC).astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 0, 0, 0])
        return image, {"transparency": 1}
    if mode == "L":  # grey with one transparent value
        return Image.fromarray(np.where(DISC, 0, 1).astype(np.uint8)), {"transparency": 1}
    image = Image.merge("LA", (Image.new("L", (8, 8)), Image.fromarray(alpha)))
    return image.convert(mode), {}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
@pytest.mark.parametrize("colours", ["L", "RGB"])
def test_a_shape_on_a_transparent_ground_is_seen(mode, colours):
    image, options = drawn_on_nothing(mode)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = file(image, **options)
    white = np.asarray(decoded_image(content, colours)).reshape(8, 8, -1)
    np.testing.assert_array_equal(white, np.where(DISC, 0, 255)[..., None].repeat(white.shape[2], 2))
    assert not np.asarray(decoded_image(content, colours, ground="black")).any()
    np.testing.assert_array_equal(np.asarray(decoded_image(content, "RGBA"))[..., 3] > 0, DISC)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_its_camera_was_held(orientation):
    upright = np.kron(np.array([[255, 0], [128, 64], [30, 200]], np.uint8), np.ones((16, 16), np.uint8))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = file(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    np.testing.assert_array_equal(np.asarray(decoded_image(content, "L")), upright)


def test_other_colour_spaces_become_colours():
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    for image, kind in ((red.convert("CMYK"), "TIFF"), (red.convert("YCbCr"), "TIFF"), (red.convert("P"), "PNG")):
        assert abs(np.asarray(decoded_image(file(image, kind), "RGB")).astype(int) - [255, 0, 0]).max() <= 2
        assert abs(np.asarray(decoded_image(file(image, kind), "L")).astype(int) - 76).max() <= 2


@pytest.fixture
def folder(tmp_path):
    """Two classes with an image each, and what systems put beside them."""
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.fromarray(RAMP).save(tmp_path / "pictures" / name / "1.png")
    return tmp_path / "pictures"


def read(folder, **arguments):
    return ImageFolder(str(folder), size=8, channels=1, **arguments).samples()


def test_hidden_folders_and_other_files_are_no_classes_and_no_samples(folder, capsys):
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "dog/.thumbnails", "dog/@eaDir"):
        (folder / name).mkdir()
        Image.fromarray(RAMP).save(folder / name / "1.png")
    (folder / "cat" / "._1.png").write_bytes(b"of a Mac")
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / "README.md").write_text("x")
    samples = read(folder)
    assert samples.classes == ("cat", "dog") and len(samples) == 2
    said = capsys.readouterr().err
    assert "not pictures: 1 of the files (.txt)" in said and str(folder / "cat" / "notes.txt") in said
    assert f"hidden: 6 of the images, such as {folder / '.ipynb_checkpoints/1.png'}" in said


def animated(path):
    Image.fromarray(RAMP).save(path, save_all=True, append_images=[Image.fromarray(RAMP.T.copy())])


def truncated(path):
    rng = np.random.default_rng(0)
    content = file(Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)), "PNG")
    path.write_bytes(content[: len(content) // 2])


BAD = {
    "animated.gif": (animated, "several frames"),
    "pages.tif": (animated, "several frames"),
    "animated.webp": (animated, "several frames"),
    "cut.png": (truncated, "truncated"),
    "empty.jpg": (lambda path: path.write_bytes(b""), "cannot identify"),
    "float.tif": (lambda path: Image.fromarray(np.float32(RAMP / 255)).save(path), "give `white`"),
    "phone.heic": (lambda path: path.write_bytes(b"x"), "convert it to PNG or JPEG"),
    "drawing.svg": (lambda path: path.write_text("<svg/>"), "convert it to PNG or JPEG"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_named_with_its_file(folder, name):
    make, words = BAD[name]
    make(folder / "dog" / name)
    with pytest.raises(UserError) as error:
        read(folder)
    assert str(folder / "dog" / name) in str(error.value) and words in str(error.value), error.value
    assert "1 of 3 images cannot be used" in str(error.value) and "\n" not in str(error.value)


def test_all_that_cannot_be_used_is_named_at_once(folder):
    for number in range(7):
        truncated(folder / "dog" / f"cut_{number}.png")
    with pytest.raises(UserError, match=r"7 of 9 images.*cut_0\.png.*cut_4\.png.*; and 2 more\."):
        read(folder)


def test_an_image_beside_the_folders_of_classes_is_not_left_out_without_a_word(folder):
    Image.fromarray(RAMP).save(folder / "stray.png")
    with pytest.raises(UserError, match=r"stray\.png is in the folder of no class"):
        read(folder)


def test_dark_images_of_12_bits_are_told_of(folder, capsys):
    for name in ("cat", "dog"):
        (folder / name / "1.png").unlink()
        Image.fromarray(RAMP.astype(np.uint16) * 16).save(folder / name / "2.png")
    assert int(read(folder).x.max()) == 16
    assert "no pixel" in (said := capsys.readouterr().err) and "4095 for 12 bits" in said
    assert int(read(folder, white=4080).x.max()) == 255 and not capsys.readouterr().err


def test_the_ground_and_the_white_reach_the_samples(folder):
    image, _ = drawn_on_nothing("RGBA")
    image.save(folder / "cat" / "1.png")
    white, black = read(folder).x[0], read(folder, ground="black").x[0]
    assert torch.equal(white[0] == 0, torch.from_numpy(DISC)) and not black.any()
    assert ImageFolder(str(folder), size=8).facts() != ImageFolder(str(folder), size=8, ground="black").facts()
