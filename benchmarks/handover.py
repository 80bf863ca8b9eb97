"""Images to the engine by a pipe or by shared memory: `python -m benchmarks.handover [SECONDS]`.

Hands micro-batches to another process in both ways, by the pipe with the worker's own code; prints the CPU
microseconds an image that both processes take together, and the milliseconds until a micro-batch is answered.
"""

import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from multiprocessing.shared_memory import SharedMemory

from benchmarks.arguments import read_numbers
from worker.engine.pipe import pack, serve

#: Bytes of a tile of 224 and of 768 pixels, and of a large region.
SIZES = (10_000, 84_000, 2_000_000)
BATCH = 8
ROUNDS = 3
#: Hands a micro-batch over; returns the other process' CPU seconds and how many bytes it has.
Give = Callable[[Sequence[bytes]], list[float]]


def main(seconds: float) -> None:
    """Measure each size in both ways, in turns."""
    for size in SIZES:
        for _ in range(ROUNDS):
            for way in (by_pipe, by_shared_memory):
                print(json.dumps({"bytes": size, "way": way.__name__, **way(size, seconds)}), flush=True)


def by_pipe(size: int, seconds: float) -> dict[str, float]:
    """Hand over as the worker does."""
    ours, theirs = Pipe()

    def give(images: Sequence[bytes]) -> list[float]:
        for frame in pack(images, [None] * len(images), [False] * len(images)):
            ours.send_bytes(frame)
        answer: list[float] = json.loads(ours.recv_bytes())["outcomes"]
        return answer

    return _measured(_take_from_pipe, (theirs,), ours, give, size, seconds)


def by_shared_memory(size: int, seconds: float) -> dict[str, float]:
    """Copy images into a block that both processes have, and send their sizes alone."""
    ours, theirs = Pipe()
    block = SharedMemory(create=True, size=size * BATCH)
    memory = _memory_of(block)

    def give(images: Sequence[bytes]) -> list[float]:
        end = 0
        for image in images:
            begin, end = end, end + len(image)
            memory[begin:end] = image
        ours.send_bytes(json.dumps([len(image) for image in images]).encode())
        answer: list[float] = json.loads(ours.recv_bytes())
        return answer

    try:
        return _measured(_take_from_memory, (theirs, block), ours, give, size, seconds)
    finally:
        memory.release()
        block.close()
        block.unlink()


def _measured(
    take: Callable[..., None],
    arguments: tuple[Connection, *tuple[object, ...]],
    ours: Connection,
    give: Give,
    size: int,
    seconds: float,
) -> dict[str, float]:
    images = [bytes([number]) * size for number in range(BATCH)]
    process = multiprocessing.get_context("spawn").Process(target=take, args=arguments, daemon=True)
    process.start()
    arguments[0].close()
    before, received = give(images)
    if received != size * BATCH:
        raise ValueError(f"Expected {size * BATCH} bytes to arrive. Received: {received}")
    used, began, answers = time.process_time(), time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        after, _ = give(images)
        answers += 1
    spent = time.process_time() - used + after - before
    ours.close()
    process.join(10)
    return {
        "cpu_us_an_image": round(1e6 * spent / answers / BATCH, 1),
        "ms_a_micro_batch": round(1e3 * elapsed / answers, 3),
    }


def _take_from_pipe(theirs: Connection) -> None:
    serve(theirs, lambda images, _mpps, _explained: [time.process_time(), sum(map(len, images))])


def _take_from_memory(theirs: Connection, block: SharedMemory) -> None:
    memory = _memory_of(block)
    while True:
        try:
            sizes = json.loads(theirs.recv_bytes())
        except EOFError:
            break
        end, images = 0, []
        for size in sizes:
            begin, end = end, end + size
            images.append(bytes(memory[begin:end]))
        theirs.send_bytes(json.dumps([time.process_time(), sum(map(len, images))]).encode())
    memory.release()
    block.close()


def _memory_of(block: SharedMemory) -> memoryview:
    if block.buf is None:
        raise ValueError("Expected a block that is open. Received: a closed one.")
    return block.buf


if __name__ == "__main__":
    main(*read_numbers("handover", __doc__, seconds=2.0))
