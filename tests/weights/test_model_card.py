import pytest

from moco.recipe import DataSpec, EncoderSpec
from moco.weights.encoder_folder import Config
from moco.weights.model_card import code_span, model_card

HOSTILE = "x`\n---\nlicense: stolen\n```\n# Heading <script>alert(1)</script> | [a](javascript:b)\u2028- item"


def made(*, recipe: str = "demo", source: str = "here", spec: EncoderSpec | None = None, **facts: object) -> str:
    spec = spec or EncoderSpec(name="resnet10", width=0.25, stem="3x3/2")
    config = Config(encoder=spec, num_features=128, data=DataSpec(size=32, eval_resize=36), recipe=recipe, facts=facts)
    return model_card(config, parameters=307_536, source=source)


def test_the_card_says_what_the_encoder_is_and_how_it_was_trained() -> None:
    text = made(steps=1200, knn=71.9)
    for fact in (
        "to 128 numbers",
        "`resnet10` (stem 3x3/2, width 0.25)",
        "307,536",
        "36 pixels, crop the central 32 x 32",
    ):
        assert fact in text
    for fact in ("- recipe: `demo`, after `here`", "- `steps`: `1200`", "- `knn`: `71.9`", "as you choose"):
        assert fact in text


def test_text_from_outside_stays_in_its_line_and_its_code_span() -> None:
    plain = made(recipe="demo", source="here", note="fine").splitlines()
    hostile = made(recipe=HOSTILE, source=HOSTILE, note=HOSTILE).splitlines()
    assert len(hostile) == len(plain)
    changed = [line for line, other in zip(hostile, plain, strict=True) if line != other]
    assert len(changed) == 2  # the recipe's line and the fact's
    for line in changed:
        outside = "".join(line.split("`")[::2])  # what is in no code span
        assert set(outside) <= set("- recipe:, after")


def test_a_name_of_a_fact_from_outside_stays_in_its_line() -> None:
    assert len(made(**{HOSTILE: 1}).splitlines()) == len(made(fine=1).splitlines())


def test_the_front_matter_is_the_same_for_every_card() -> None:
    assert made(recipe=HOSTILE).split("---\n")[1] == made().split("---\n")[1]


@pytest.mark.parametrize("value", ["", "`", "``", "\n", "a" * 1000, {"a": "`"}, None, 0.5])
def test_code_is_one_span_on_one_line(value: object) -> None:
    made = code_span(value)
    assert made.count("`") == 2
    assert made[0] == made[-1] == "`"
    assert 3 <= len(made) <= 202
    assert len(made.splitlines()) == 1


def test_the_card_of_a_network_that_the_libraries_have_shows_how_they_load_it() -> None:
    text = made(spec=EncoderSpec(name="resnet50"))
    assert 'torchvision.models.get_model("resnet50")' in text
    assert "timm.create_model(\"resnet50\", num_classes=0, checkpoint_path='model.safetensors')" in text


def test_the_model_card_of_a_network_that_only_moco_has_says_so() -> None:
    why = "has no resnet10 with the stem 3x3/2 and width 0.25: moco.load reads this one, and --to onnx takes it"
    assert made().count(why) == 2
