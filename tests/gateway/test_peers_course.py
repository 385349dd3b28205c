"""The requests of other servers' clients to the families of the course."""

import pytest
from real_gateway import Gateway
from real_server import ROOT

pytestmark = pytest.mark.server


def test_texts_begin_with_the_word_that_was_sent(course_gateway: Gateway) -> None:
    with course_gateway.client() as client:
        for path in ("/generate", "/generate_with_rnn"):
            body = {"start_word": "the", "length": 12, "seed": 1}
            text = client.post(path, json=body).json()["generated_text"]
            assert text.startswith("the")
            assert len(text) > 12
            assert client.post(path, json=body).json()["generated_text"] == text


def test_words_are_vectors_and_have_neighbours(course_gateway: Gateway) -> None:
    with course_gateway.client() as client:
        vector = client.post("/embed", json={"word": "river"}).json()
        similar = client.post("/similar", json={"word": "river", "top_k": 3}).json()
    assert (vector["word"], vector["dim"], len(vector["vector"])) == ("river", 200, 200)
    assert similar["results"][0]["token"] == "rivers"
    assert len(similar["results"]) == 3


def test_a_file_is_classified_and_latent_models_draw_grids(course_gateway: Gateway) -> None:
    with course_gateway.client() as client:
        seven = (ROOT / "docs" / "images" / "seven.png").read_bytes()
        answer = client.post("/predict_cifar10", files={"file": ("x.png", seven, "image/png")}).json()
        bad = client.post("/predict_cifar10", files={"file": ("x.png", b"no picture", "image/png")})
        grids = [client.get(f"/{name}/generate", params={"num_samples": 4}) for name in ("gan", "vae")]
    assert len(answer["probs"]) == 10
    assert max(range(10), key=answer["probs"].__getitem__) == answer["pred_id"]
    assert abs(sum(answer["probs"]) - 1) < 1e-3
    assert bad.status_code == 400
    assert [grid.json()["num_samples"] for grid in grids] == [4, 4]
