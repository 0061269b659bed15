"""DuckDB on the benchmark file, one thread: the practical limit that our figures stand beside.

usage: duckdb_lines.py FILE      prints one JSON line a measurement, as the runner reads them
"""

import json
import sys
import time

import duckdb

COLUMNS = "{device: 'VARCHAR', ts: 'BIGINT', temperature: 'DOUBLE', vibration: 'DOUBLE', pressure: 'DOUBLE', rpm: 'DOUBLE', flow: 'DOUBLE'}"

# Every column is decoded into a table's column; the table is in memory.
DECODE = "CREATE OR REPLACE TEMP TABLE decoded AS SELECT * FROM {source}"

# Ten-second tumbling windows per device: mean and deviation of two channels, maximum of a third.
WINDOW = """
CREATE OR REPLACE TEMP TABLE windows AS
SELECT device, ts // 10000 AS window_index,
       avg(temperature) AS temp_mean, stddev_pop(temperature) AS temp_std,
       avg(vibration) AS vib_mean, stddev_pop(vibration) AS vib_std,
       max(pressure) AS pressure_max
FROM {source} GROUP BY ALL
"""


def measure(connection, name, statement, path):
    source = f"read_json(?, format = 'newline_delimited', columns = {COLUMNS})"
    cpu, wall = time.process_time(), time.perf_counter()
    connection.execute(statement.format(source=source), [path])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "name": name,
        "by": f"DuckDB {duckdb.__version__}, one thread",
        "cpu_seconds": cpu,
        "wall_seconds": wall,
    }


def main():
    path = sys.argv[1]
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    count = lambda query: connection.execute(query).fetchone()
    decode = measure(connection, "decode", DECODE, path)
    (decode["rows"],) = count("SELECT count(*) FROM decoded")
    window = measure(connection, "decode+window", WINDOW, path)
    window["rows"] = decode["rows"]
    # What a second implementation must also find, to have done the same work.
    window["windows"], window["check"] = count(
        "SELECT count(*), sum(temp_mean + temp_std + vib_mean + vib_std + pressure_max) FROM windows"
    )
    for line in (decode, window):
        print(json.dumps(line))


main()
