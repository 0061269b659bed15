"""LaminarDB on the benchmark file: the streaming engine nearest to ours, in process, fed by pyarrow's JSON reader.

usage: laminar_lines.py FILE      prints one JSON line, as the runner reads it

The settings are the best of those tried that find every window. Only the columns that the windows need are decoded, by one
thread, in blocks of 32 MiB: smaller ones cost more. With a watermark that lags by less than a block of rows spans (26 s of event
time) LaminarDB drops rows of the block as late, without a word, so it lags by 30 s here; ours by 1 s. The runner compares what
was found, and leaves out a run that lost windows.
"""

import json
import sys
import time

import laminardb
import pyarrow
import pyarrow.compute
import pyarrow.json

BLOCK = 32 << 20
DELAY_SECONDS = 30
# How long no window comes before all are taken to be there.
SILENCE_MS = 8_000

SCHEMA = pyarrow.schema(
    [("device", pyarrow.string()), ("ts", pyarrow.int64())]
    + [(channel, pyarrow.float64()) for channel in ("temperature", "vibration", "pressure")]
)

SOURCE = f"""
CREATE SOURCE readings (
    device VARCHAR NOT NULL, ts BIGINT NOT NULL, temperature DOUBLE, vibration DOUBLE, pressure DOUBLE,
    WATERMARK FOR ts AS ts - INTERVAL '{DELAY_SECONDS}' SECOND
)
"""

# Ten-second tumbling windows per device: mean and deviation of two channels, maximum of a third.
WINDOW = """
CREATE STREAM windows AS
SELECT device, avg(temperature) AS temp_mean, stddev_pop(temperature) AS temp_std,
       avg(vibration) AS vib_mean, stddev_pop(vibration) AS vib_std, max(pressure) AS pressure_max
FROM readings GROUP BY device, tumble(ts, INTERVAL '10' SECOND)
EMIT ON WINDOW CLOSE
"""
FEATURES = ("temp_mean", "temp_std", "vib_mean", "vib_std", "pressure_max")


class Windows:
    """The closed windows, and the clocks when the last of them came."""

    def __init__(self):
        self.tables = []
        self.at = None

    def take(self, result):
        self.tables.append(result.to_arrow())
        self.at = (time.process_time(), time.perf_counter())

    def check(self):
        return sum(pyarrow.compute.sum(table.column(name)).as_py() or 0.0 for table in self.tables for name in FEATURES)


def main():
    path = sys.argv[1]
    pyarrow.set_cpu_count(1)
    database = laminardb.open("bench")
    database.execute(SOURCE)
    database.execute(WINDOW)
    database.start()
    subscription = database.subscribe_stream("windows")
    windows = Windows()
    rows, last = 0, 0
    cpu, wall = time.process_time(), time.perf_counter()
    writer = database.writer("readings")
    reader = pyarrow.json.open_json(
        path,
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=BLOCK),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="ignore"),
    )
    for batch in reader:
        rows += batch.num_rows
        last = batch.column("ts")[-1].as_py()
        writer.insert(batch)
        while (result := subscription.try_next()) is not None:
            windows.take(result)
    # One more row, of no device, closes the windows that are open; its own stays open.
    end = {"device": [""], "ts": [last + 3_600_000], "temperature": [0.0], "vibration": [0.0], "pressure": [0.0]}
    writer.insert(pyarrow.record_batch(end, schema=SCHEMA))
    writer.flush()
    while True:
        try:
            result = subscription.next_timeout(SILENCE_MS)
        except laminardb.SubscriptionError:
            break
        if result is None:
            break
        windows.take(result)
    cpu, wall = (windows.at[0] - cpu, windows.at[1] - wall) if windows.at else (0.0, 0.0)
    line = {
        "name": "decode+window",
        "by": f"LaminarDB {laminardb.__version__}, in process, decoded by pyarrow {pyarrow.__version__}",
        "rows": rows,
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "windows": sum(table.num_rows for table in windows.tables),
        "check": windows.check(),
    }
    print(json.dumps(line))


main()
