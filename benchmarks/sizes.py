"""How much each case asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    connections: int = 16
    wait_runs: int = 1600
    create_runs: int = 800
    ttfe_runs: int = 200
    stream_tokens: int = 5000
    fanout_runs: int = 20
    fanout_tokens: int = 500
    idle_runs: int = 500
    idle_s: float = 15.0
    cancel_runs: int = 40
    steps_runs: int = 20
    steps_each: int = 20
    history_runs: int = 300
    history_page: int = 100
    history_calls: int = 30
    control_s: float = 5.0
    control_rounds: int = 100
    chat_turns: int = 400
    #: The turns of ``long_chat`` whose cost is shown, as medians with their neighbours.
    chat_marks: tuple[int, ...] = (1, 5, 50, 100, 200, 400)
    chat_neighbours: int = 4
    #: 400 turns are 0.35 MB of text; a stored message is about 500 bytes.
    message_bytes: int = 440
    image_bytes: int = 2_000_000
    image_turns: int = 20
    state_keys: int = 20_000
    state_steps: int = 50
    viewers: int = 1000
    viewers_tokens: int = 200
    stalled_readers: int = 400
    stalled_tokens: int = 5000
    restart_runs: int = 10_000
    #: For how long files must not change to be taken as final.
    unchanged_s: float = 3.0
    starts: int = 5
    #: Finished runs of ``growth`` and threads of ``search``; the option ``--scale``.
    scale: int = 20_000
    #: Repeated before the clock starts.
    warm_runs: int = 5
    warm_tokens: int = 100

    def for_slow(self) -> Sizes:
        """Give sizes for a slow server, so that it does not take all of the time."""
        return replace(
            self,
            wait_runs=min(self.wait_runs, 160),
            create_runs=min(self.create_runs, 320),
            ttfe_runs=min(self.ttfe_runs, 15),
            cancel_runs=min(self.cancel_runs, 15),
            steps_runs=min(self.steps_runs, 5),
            starts=min(self.starts, 3),
            warm_runs=1,
        )


#: Shows that every case runs; its figures mean nothing.
TINY = Sizes(
    connections=2,
    wait_runs=4,
    create_runs=4,
    ttfe_runs=2,
    stream_tokens=20,
    fanout_runs=2,
    fanout_tokens=10,
    idle_runs=3,
    idle_s=0.2,
    cancel_runs=2,
    steps_runs=2,
    steps_each=3,
    history_runs=3,
    history_page=2,
    history_calls=2,
    control_s=0.1,
    control_rounds=2,
    chat_turns=4,
    chat_marks=(1, 4),
    chat_neighbours=1,
    image_bytes=1000,
    image_turns=2,
    state_keys=5,
    state_steps=2,
    viewers=3,
    viewers_tokens=5,
    stalled_readers=2,
    stalled_tokens=20,
    restart_runs=3,
    unchanged_s=0.2,
    starts=1,
    scale=10,
    warm_runs=1,
    warm_tokens=5,
)
