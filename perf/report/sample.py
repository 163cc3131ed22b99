"""What tools print, as samples."""

import json
import re

from .process import Failed


def of_stripewise(printed):
    """The result of `stripewise perf` or `stripewise bench`."""
    result = printed["results"][0]
    if result["io_failed"]:
        raise Failed(f"{result['io_failed']} requests failed")
    sample = {"iops": result["iops"], "mibps": result["mibps"], "mean": result["avg_latency_us"]}
    for key in ("p50", "p90", "p99", "p99_9"):
        sample[key] = result[f"{key}_latency_us"]
    sample["cpu_us"] = result["cpu_us_per_io"]
    return sample


def of_fio(printed):
    """The first job of fio's JSON, reads and writes together; percentiles of what there was more of."""
    # fio may say something before it.
    start = printed.find("\n{") + 1 if "\n{" in printed else 0
    try:
        job = json.loads(printed[start:])["jobs"][0]
    except (ValueError, LookupError) as error:
        raise Failed(f"fio has printed no result: {printed[:300]!r}") from error
    if job.get("error"):
        raise Failed(f"fio's job {job['jobname']} ended with error {job['error']}")
    lanes = [job["read"], job["write"]]
    larger = max(lanes, key=lambda lane: lane["total_ios"])
    sample = {
        "iops": sum(lane["iops"] for lane in lanes),
        "mibps": sum(lane["bw_bytes"] for lane in lanes) / 2**20,
        "mean": larger["clat_ns"]["mean"] / 1000,
    }
    percentiles = larger["clat_ns"].get("percentile", {})
    for key, name in (("p50", "50.000000"), ("p90", "90.000000"), ("p99", "99.000000"), ("p99_9", "99.900000")):
        if name in percentiles:
            sample[key] = percentiles[name] / 1000
    return sample


_TOTAL = re.compile(r"^\s*Total\s*:\s*([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)", re.MULTILINE)


def of_bdevperf(printed):
    """The line of sums of SPDK's bdevperf: IOPS, MiB/s, failures and timeouts a second, average latency."""
    found = _TOTAL.search(printed)
    if not found:
        raise Failed(f"bdevperf has printed no line of sums: {printed[-500:]}")
    iops, mibps, failed, _, mean = map(float, found.groups())
    if failed:
        raise Failed(f"bdevperf: {failed} requests a second failed")
    return {"iops": iops, "mibps": mibps, "mean": mean}


def of_parity(printed):
    """Samples of `cargo bench --bench parity -- --json` by subject and work: the best of our ways, and ISA-L's."""
    for row in printed["rows"]:
        work = f"{row['temperature']}-{_size(row['block_bytes'])}-{row['sources']}+1"
        isal = [speed for speed in row["speeds"] if "isa-l" in speed["name"].lower()]
        ours = [speed for speed in row["speeds"] if speed not in isal]
        yield "parity", work, {"gbps": max(speed["median"] for speed in ours)}
        for speed in isal:
            yield "ISA-L", work, {"gbps": speed["median"]}


def _size(size):
    return f"{size >> 20}m" if size >= 1 << 20 else f"{size >> 10}k"
