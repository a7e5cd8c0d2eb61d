from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images
from torch import nn
from torch.nn import functional as F

from lit_core.errors import RunFailure, UserError
from lit_core.fetch.packages import check_file
from lit_core.files.paths import data_root
from lit_core.lightning.checksums import weights_sha256
from lit_valuation.encoders import (
    EfficientNetLite0,
    HuggingFaceEncoder,
    Identity,
    MiniLM,
    TaskFeatures,
    embed,
)
from lit_valuation.encoders.base import prepare_images
from lit_valuation.nn import efficientnet_lite

SENTENCES = ["A dog runs over the snow.", "Wolf.", "The bank raised its rates again in spring."]


@pytest.fixture(scope="module")
def digits():
    """Eight by eight pixels, grey."""
    return (torch.tensor(load_digits().images[:20]) * 255 / 16).to(torch.uint8)[:, None]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny models that transformers makes and writes itself."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(SENTENCES, trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"]))
    size = words.get_vocab_size()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=size, max_position_embeddings=32, **small))
    vit = transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **small))
    clip = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={"vocab_size": size, "max_position_embeddings": 32, "eos_token_id": 0, **small},
            vision_config={"image_size": 32, "patch_size": 8, **small},
            projection_dim=12,
        )
    )
    for name, model in (("bert", bert), ("vit", vit), ("clip", clip)):
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
        form = '{"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.5]}'
        (root / name / "preprocessor_config.json").write_text(form)
    return root


def test_images_are_made_what_a_network_expects(digits):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.5)
    ready = prepare_images(digits, 16, mean, std)
    assert ready.shape == (20, 3, 16, 16) and ready.dtype == torch.float32
    torch.testing.assert_close(prepare_images(digits.float() / 255, 16, mean, std), ready)
    grey = ready * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
    torch.testing.assert_close(grey[:, 0].mean(), digits.float().mean() / 255, atol=0.01, rtol=0)
    colour = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prepare_images(colour, 8, (0.0,) * 3, (1.0,) * 3), colour)


def test_features_have_unit_length_and_batches_do_not_show(digits, folders):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
    for encoder in (Identity(), TaskFeatures(network), HuggingFaceEncoder(str(folders / "vit"))):
        features = embed(encoder, digits, batch_size=7)
        torch.testing.assert_close(features, embed(encoder, digits, batch_size=20))
        lengths = features.norm(dim=1)
        torch.testing.assert_close(lengths, (lengths > 0).float())
    assert network.training
    network.eval()
    expected = network[:4](digits.float() / 255)
    torch.testing.assert_close(TaskFeatures(network).encode(digits), expected)


def test_hugging_face_models_as_they_are_called_by_hand(digits, folders):
    import transformers

    pixels = prepare_images(digits, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.5))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders / "bert")
    with torch.no_grad():
        vit = transformers.ViTModel.from_pretrained(folders / "vit").eval()
        encoder = HuggingFaceEncoder(str(folders / "vit"))
        torch.testing.assert_close(encoder.encode(digits), vit(pixel_values=pixels).pooler_output)
        assert encoder.sha256 == weights_sha256(vit) and encoder.name == "HuggingFaceEncoder[vit]"

        bert = transformers.BertModel.from_pretrained(folders / "bert").eval()
        alone = [bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0) for text in SENTENCES]
        encoder = HuggingFaceEncoder(str(folders / "bert"))
        torch.testing.assert_close(encoder.encode(SENTENCES, batch_size=2), torch.stack(alone), atol=1e-5, rtol=1e-4)
        assert len(HuggingFaceEncoder(str(folders / "bert"), max_length=2).encode(SENTENCES)) == 3

        clip = transformers.CLIPModel.from_pretrained(folders / "clip").eval()
        vision = clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output)
        both = HuggingFaceEncoder(str(folders / "clip"))
        torch.testing.assert_close(both.encode(digits), vision)
        assert both.encode(SENTENCES).shape == (3, 12)


def test_inputs_that_an_encoder_cannot_read(digits, folders):
    vit, bert = (HuggingFaceEncoder(str(folders / name)) for name in ("vit", "bert"))
    with pytest.raises(UserError, match=r"encodes images .* shape \(20, 64\)"):
        vit.encode(digits.flatten(1))
    with pytest.raises(UserError, match="takes numbers, but was given texts"):
        Identity().encode(SENTENCES)
    for nothing, reason in (([], "no text"), ([1, 2], "a list of texts"), ("text", "a list of texts")):
        with pytest.raises(UserError, match=reason):
            bert.encode(nothing)
    with pytest.raises(UserError, match="batch_size is 0"):
        embed(Identity(), digits, 0)
    with pytest.raises(UserError, match="max_length is 0"):
        HuggingFaceEncoder(str(folders / "bert"), max_length=0)
    with pytest.raises(UserError, match=r"cannot be loaded.*give a name on the Hub or a folder") as caught:
        HuggingFaceEncoder(str(folders / "none"))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="size is 16, but must be 32"):
        EfficientNetLite0(size=16)


def test_a_file_of_another_hash_is_refused(tmp_path):
    (tmp_path / "weights").write_bytes(b"other")
    with pytest.raises(RunFailure, match="is expected; remove its folder"):
        check_file(tmp_path / "weights", "0" * 64)


def test_the_network_has_the_published_shape():
    """4.65 million weights (Liu 2020), five halvings, and TensorFlow's padding, which is larger at the far side."""
    network = efficientnet_lite.EfficientNetLite0().eval()
    assert sum(weight.numel() for weight in network.parameters()) == 4_652_008
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert network.blocks(network.stem(x)).shape == (1, 320, 2, 2)
    convolution = network.stem[0]
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), convolution.weight, stride=2)
    torch.testing.assert_close(convolution(x), expected)


@pytest.mark.slow
def test_real_image_weights_know_what_is_on_photographs():
    """ImageNet's classes 698, palace, and 985, daisy; both scikit-learn photographs are of these."""
    photographs = [torch.tensor(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]
    cut = torch.stack([photograph[:, :, 100:527] for photograph in photographs])
    encoder = EfficientNetLite0()
    logits = encoder.module.eval().classifier(encoder.encode(cut))
    assert logits.argmax(dim=1).tolist() == [698, 985]
    assert embed(encoder, cut).shape == (2, 1280)
    digits, y = load_digits(return_X_y=True)
    small = (torch.tensor(digits[:200]).reshape(-1, 1, 8, 8) * 255 / 16).to(torch.uint8)
    features, y = embed(EfficientNetLite0(size=64), small), torch.tensor(y[:200])
    near = (features @ features.T).fill_diagonal_(-1).argmax(dim=1)
    assert (y[near] == y).float().mean() > 0.7  # a tenth by chance


@pytest.mark.slow
def test_real_text_weights_find_the_paraphrase():
    encoder = MiniLM()
    assert data_root() in Path(encoder.model).parents
    features = embed(encoder, ["How old are you?", "What is your age?", *SENTENCES])
    near = features @ features.T
    assert near[0, 1] > 0.6 and near[0, 2:].max() < 0.3
    with pytest.raises(UserError, match="MiniLM encodes a list of texts"):
        encoder.encode(torch.zeros(2, 1, 8, 8))
