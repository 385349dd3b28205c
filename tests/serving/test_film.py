"""What a film keeps of a sampler's looks, and when a frame may be shown to a client that watches."""

import torch

from genserve.sampling.samplers import Query, heun, sample
from genserve.sampling.schedules import karras
from genserve.sampling.wrappers import watched
from genserve.serving.film import Film


def look(film: Film, sigma: float, x_0: float) -> None:
    x = torch.zeros(1, 1, 2, 2)
    film.see(Query(x, torch.tensor([sigma]), torch.tensor([0])), torch.full_like(x, x_0))


def test_a_frame_is_settled_when_the_sampler_has_left_its_level() -> None:
    film = Film(levels=4, keep=3, preview="x_0")
    look(film, 8.0, -1.0)
    assert film.settled == []  # another look at this level may follow
    look(film, 4.0, 0.5)  # Heun's trial point
    assert [frame.step for frame in film.settled] == [1]
    look(film, 4.0, 1.0)  # and where it really goes
    assert [frame.step for frame in film.settled] == [1]
    look(film, 2.0, 0.0)
    assert [(frame.step, frame.nfe, frame.sigma) for frame in film.settled] == [(1, 1, 8.0), (2, 3, 4.0)]
    assert film.settled[1].pixels.max() == film.settled[1].pixels.min() == 255  # the last look counts


def test_a_film_of_guesses_leaves_the_last_one_out() -> None:
    """It is the finished picture, which comes anyway; of x_t, the last level is one more picture."""
    for preview, steps in (("x_0", [1, 2, 3, 4]), ("x_t", [1, 2, 3, 4, 5])):
        film = Film(levels=5, keep=50, preview=preview, cost=2)
        x_t = torch.ones(1, 1, 2, 2)
        sample(watched(heun(x_t, karras(5), torch.tensor([0])), film.see), lambda x, sigma, y: 0 * x)
        assert [frame.step for frame in film.frames] == steps
        assert film.frames[1].nfe == 2 * 3  # two looks at the second level, each evaluated twice


def test_a_walk_at_one_level_gets_on_with_every_look_and_is_shown_as_it_is() -> None:
    film = Film(levels=6, keep=3, walks=True)
    for k in range(6):
        x = torch.full((1, 1, 1, 1), k / 5)
        film.see(Query(x, torch.ones(1), torch.zeros(1).long()), x)
    assert [frame.step for frame in film.frames] == [1, 3, 6]
    assert [frame.pixels.item() for frame in film.frames] == [128, 178, 255]
