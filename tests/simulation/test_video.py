"""Guarantee: a video shows the episodes of an evaluation, and none stops anything."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image
from support.config import compose_config
from support.offline_wandb import of_kind, offline_runs
from support.train import TINY, train_run

from offline_cql.commands.evaluate import evaluate
from offline_cql.runs.result import read_result
from offline_cql.simulation.video import Camera, write_gif

ROLLOUTS = ("evaluation.episodes=2", "evaluation.environments=2", "evaluation.video=1")
SHORT = (
    *(key for key in TINY if key != "evaluation=none"),
    *("updates=10", "evaluation.every=10", *ROLLOUTS),
)


class Counter(gym.Env[Any, Any]):
    """A column of black pixels that gets wider with each of 7 steps."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012

    def reset(self, **_options: Any) -> tuple[Any, dict[str, Any]]:
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return np.zeros(1, np.float32), 1.0, self.count == 7, False, {}

    def render(self) -> Any:
        image = np.full((500, 1000, 3), 255, np.uint8)
        image[:, : 100 * self.count] = 0
        return image


def test_a_camera_draws_each_end_and_25_images_a_second(tmp_path: Path):
    """50 states a second: every second one, the first and the last."""
    camera = Camera(Counter())
    camera.reset()
    for _ in range(7):
        camera.step(0)
    assert camera.stride == 2
    widths = [int((np.asarray(i.convert("L"))[0] < 128).sum()) for i in camera.images]
    assert widths == [0, 64, 128, 192, 224]  # of 320 pixels, in which 10 steps fit
    assert camera.images[0].size == (320, 160)
    write_gif(tmp_path / "new" / "video.gif", camera.images, seconds_per_image=0.04)
    with Image.open(tmp_path / "new" / "video.gif") as video:
        assert (video.n_frames, video.info["duration"], video.info["loop"]) == (5, 40, 0)


@pytest.mark.usefixtures("recorded")
def test_training_and_evaluation_write_videos_and_send_them(tmp_path: Path, monkeypatch: Any):
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = [key for key in SHORT if key != "logger=csv"]
    folder = train_run(tmp_path / "run", *settings, "logger=wandb")
    evaluate(compose_config(f"run={folder}", *ROLLOUTS, entry_point="evaluate"))
    names = sorted(path.name for path in (folder / "videos").iterdir())
    assert names == ["10.gif", "evaluate-10.gif"]
    with Image.open(folder / "videos" / "10.gif") as video:
        assert video.n_frames >= 100  # 200 steps at 30 a second
    for records, name in zip(offline_runs(folder), ("evaluation", "evaluate"), strict=True):
        items = [row["item"] for row in of_kind(records, "history")]
        (video_item,) = [item for item in items if f"{name}/video._type" in item]
        assert video_item["update"] == 10


@pytest.mark.usefixtures("recorded")
def test_a_simulator_that_cannot_draw_is_one_line(tmp_path: Path, monkeypatch: Any, capsys: Any):
    monkeypatch.setattr("gymnasium.envs.classic_control.PendulumEnv.render", lambda _self: None)
    folder = train_run(tmp_path / "run", *SHORT, "updates=20")
    assert read_result(folder)["status"] == "finished"
    evaluate(compose_config(f"run={folder}", *ROLLOUTS, entry_point="evaluate"))
    lines = [line for line in capsys.readouterr().err.splitlines() if "note: no video" in line]
    assert len(lines) == 2  # of two evaluations during the training one, and one of evaluate.py
    assert lines[0].startswith("note: no video: Pendulum-v1 draws nothing")
    assert not (folder / "videos").exists()
