"""What docs/api.md says of the families beside pictures from noise, each with the table of its fields.

By the name in the address; a section's prose comes before its table. `genserve api-docs` puts them together.
"""

from dataclasses import dataclass

from genserve.families import FAMILIES, load
from genserve.serving.fields import Fields


@dataclass(frozen=True)
class Section:
    """The page's part of one family.

    Args:
        family: its row in the table of families.
        prose: markdown, answers first: what is sent, what comes back, an example.
    """

    family: str
    prose: str

    @property
    def kind(self) -> type[Fields]:
        """The family's request."""
        kind: type[Fields] = load(FAMILIES[self.family].request)
        return kind


GAN = """
One evaluation a picture. `seed`, `first_index`, `label`, `format`, `columns` and `scale` mean what they mean for a
diffusion model, and `seed_to` draws pictures on the way between two seeds:

```sh
curl http://127.0.0.1:8080/predictions/gan -F seed=1 -F num_samples=64 -F columns=8 -o digits.png
curl http://127.0.0.1:8080/predictions/gan -F seed=1 -F seed_to=2 -F label=3 -F num_samples=8 -F columns=8 -o between.png
```

`truncation` t moves every number of the noise into -t to t, by its quantile: pictures get more typical and less
varied. The header `X-Truncation` and JSON's `settings` name it.
"""

VAE = """
It draws as a GAN does, and it looks at pictures that are sent (`images`, as an energy's):

| `task` | what happens | answer |
|---|---|---|
| `sample` | draws noise of the prior, `temperature` times as large, and decodes it | pictures |
| `reconstruct` | encodes a picture and decodes the mean of its code | pictures |
| `walk` | encodes two pictures, and decodes `num_samples` points between their codes, on an arc in the prior's noise | pictures |
| `encode` | the code of a picture: `mean` and `log_variance` of q(z given x and y), and `noise`, the prior's noise at the mean | JSON |
| `bound` | a bound of the log-likelihood of a picture given its class, over 256 levels of each pixel: `bound` = `reconstruction` + `kl` in nats, and `bits_per_dim` | JSON |

`bound` draws its z from `seed`. With several `draws` it is their mean, and `importance_weighted` is a tighter bound
from the same draws. The model wants a class for everything: a picture without a `label` gets the class whose bound is
best, which the answer names, at the cost of an evaluation for each class.

```sh
curl http://127.0.0.1:8080/predictions/vae -F seed=1 -F num_samples=64 -F columns=8 -o digits.png
curl http://127.0.0.1:8080/predictions/vae -F images=@docs/images/seven.png -F scale=8 -o back.png
curl http://127.0.0.1:8080/predictions/vae -F task=bound -F images=@docs/images/seven.png -F draws=16 -F seed=1
```
"""

CLASSIFIER = """
It says what pictures show (`images`, as an energy's, but of any size):

| `task` | what happens | answer |
|---|---|---|
| `classify` | the likeliest classes, with calibrated probabilities | JSON |
| `embed` | the features before the last layer: `n_features` numbers of a picture | JSON |
| `explain` | which pixels speak for a class, and which against it | heat maps, or JSON with them |

```sh
curl http://127.0.0.1:8080/predictions/classifier -T photo.jpg
curl http://127.0.0.1:8080/predictions/classifier -F images=@photo.jpg -F tta=2 -F top_k=3
curl http://127.0.0.1:8080/explanations/classifier -F images=@photo.jpg -F method=integrated -F scale=8 -o why.png
curl http://127.0.0.1:8080/predictions/classifier-mnist -F images=@docs/images/seven.png
```

The answer has an object for each picture, in their order:

```json
{"images": [{"label": "cat", "index": 3, "probability": 0.91324, "entropy": 0.3642,
             "top": [{"label": "cat", "index": 3, "probability": 0.91324}, ...], "width": 640, "height": 480}],
 "nfe": 1, "settings": {"model": "...", "task": "classify", "tta": 0, "temperature": 0.31, ...}}
```

- **A picture of another size** is cut to the largest middle part that has the model's proportions, and resized by
  Lanczos' filter; `width` and `height` are those it was sent with. Gray and colour become what the model needs. What
  is transparent is black, or white with `invert`. Other rules are those of [pictures.md](pictures.md).
- **Probabilities** are a softmax of logits over a temperature that was fitted on images held out, one for each level of
  `tta`. `describe` has the temperatures and, in `quality`, accuracy, negative log-likelihood and expected calibration
  error on test images. `entropy` is that of all classes, in nats: 0 is sure.
- **`explain`** colours a pixel red if its value speaks for the class, and blue if it speaks against it: by the slope of
  the class's logit (`gradient`: would the logit rise if the pixel were brighter?) or by what the pixel adds
  (`integrated`). The header `X-Index` has the class of each picture. JSON has, for each, `probability` and `logit`, and
  of `integrated` the `rise` of the logit since a black picture and what all pixels have `attributed` of it: if the two
  differ much, more `steps` help. `POST /explanations/classifier` is this task.
- **The same picture gets the same answer alone and in any company**, up to one in the last digit (probabilities have
  five behind the point, other numbers four) and 1 of 255 in a heat map: float32 adds up in an order that depends on the
  size of a batch.
"""

WORDS = """
Vectors of 30,000 English words ([their card](../weights/words-english/README.md)). A text is a word or a sentence:

| `task` | texts | answer for each |
|---|---|---|
| `nearest` | 1 to 64 | the `top_k` words whose vectors are most like it, with their cosines; words of the text are left out |
| `vector` | 1 to 64 | its vector, of length 1 |
| `similarity` | 2 to 64 | its cosine with each of them |
| `analogy` | 3: a, b, c | one answer: the words that are to c as b is to a, nearest to b - a + c |
| `odd` | 3 to 64 | `fit`, its mean cosine with the others, and whether it is the `odd` one, of the lowest fit |

A sentence has the mean of its words' vectors, by weights that are small for frequent words. Case and accents go, and
short forms are parted ("don't" is "do" and "n't"). `words` in the answer are those that counted, `unknown` those that
the vocabulary lacks; a text without any known word is an error, which suggests words of a similar spelling. Answers
have the same bits alone and in any company.

```sh
curl "http://127.0.0.1:8080/words/predict?text=river"
curl http://127.0.0.1:8080/predictions/words -F task=analogy -F text=man,king,woman -F top_k=3
curl http://127.0.0.1:8080/predictions/words -H 'Content-Type: application/json' \\
     -d '{"task": "similarity", "text": ["a boat on the river", "a ship at sea", "tax law"]}'
```
"""

TEXT = """
A language model writes on from a `prompt`, or says how likely a `text` is:

```sh
curl http://127.0.0.1:8080/predictions/text -F prompt='It is a truth universally acknowledged, that' -F format=text
curl -N http://127.0.0.1:8080/predictions/text -F prompt='Mr. Darcy' -F seed=1 -F stream=sse
curl http://127.0.0.1:8080/predictions/text -F text='The evening was spent in talking over the news.'
```

Every text of every open request takes one step together. Text k of a seed is the same whichever request writes it, to
the bit, alone or in any company: its token number j is chosen by number j of its own random stream. `temperature`,
`top_k` and `top_p` apply in this order. A blank at the end of a prompt goes to the first word that is written.

| `task` | answer, in `texts` |
|---|---|
| `write` | `text` without the prompt, `ended_by` (`length` or `stop`), `stop`, `n_tokens`, `log_p` (natural logarithm of its probability by the model itself, before any rule), and `tokens` with `log_probabilities` |
| `score` | `log_p`, `perplexity` of a token, `characters`, `n_tokens`, `unknown`, of byte pairs also `bits_per_character`, and `tokens` with `log_probabilities` |

A stream has an object for each token, `{"index", "text"}` and its logarithms if they are wanted, and at the end the
whole answer with `"done": true`: a line of JSON each (`jsonl`), or server-sent events (`sse`, `true`), of which the
last one is `data: [DONE]`. Text that may be the beginning of a stop string is held back until that is known.

`/predictions/ngram` has the same fields over counts of words (interpolated Kneser-Ney), and `order`: 2 is a bigram.
"""

SECTIONS: dict[str, Section] = {
    "gan": Section("gan", GAN),
    "vae": Section("vae", VAE),
    "text": Section("text", TEXT),
    "classifier": Section("labels", CLASSIFIER),
    "words": Section("words", WORDS),
}
