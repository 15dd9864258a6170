"""A run's report as lines of plain text; lines that start without a space are headings."""

from __future__ import annotations

from typing import Any

from belljar.observe.words import about, plural, table

LATENCIES = ("min_ns", "p50_ns", "p99_ns", "max_ns")


def report_lines(report: dict[str, Any]) -> list[str]:
    """What `run_report` gave, for people: all but registers and addresses, which the JSON form holds."""
    lines = [
        f"{report['guest']} on {report['engine']}, mode {report['mode']}: {report['end']}, {report['message']} "
        f"(status {report['status']})",
        f"  ran for {report['timings'].get('run_ns', 0) / 1e6:.2f} ms, made in {report['timings']['create_ns'] / 1e6:.2f} ms; "
        f"{about(report['memory']['size'])} of memory",
        "",
        "Exits",
        *table([("reason", "all", *(name for name, _ in _columns(report))), *_exit_rows(report)]),
    ]
    if report["batched_writes"]:
        lines.append(f"  and {plural(report['batched_writes'], 'write')} that came without an exit of their own")
    if report["unclaimed_accesses"]:
        lines.append(f"  {plural(report['unclaimed_accesses'], 'access', 'accesses')} found no device")
    return [*lines, "", *interrupt_lines(report["interrupts"])]


def _columns(report: dict[str, Any]) -> list[tuple[str, dict[str, int]]]:
    """Exits by reason of each vCPU, and of those that were removed, where there are several."""
    columns = [(f"vCPU {vcpu['index']}", vcpu["exits"]) for vcpu in report["vcpus"]]
    columns += [(f"vCPU {vcpu['index']}, removed", vcpu["exits"]) for vcpu in report["removed_vcpus"]]
    return columns if len(columns) > 1 else []


def _exit_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    columns = _columns(report)
    return [
        (reason, str(count), *(str(exits.get(reason, 0)) for _, exits in columns))
        for reason, count in report["exits"].items()
    ]


def interrupt_lines(found: dict[str, Any] | None) -> list[str]:
    """The interrupts of a run."""
    if found is None:
        return ["Interrupts: this machine has no interrupt chips"]
    lines = [f"Interrupts, chips: {found['chips']}"]
    raised = [line for line in found["lines"] if line["raised"]]
    if raised:
        rows = [(str(line["gsi"]), line["source"], str(line["raised"])) for line in raised]
        lines += ["  lines that went up", *_indented(table([("gsi", "source", "times"), *rows]))]
    if found["by_source"]:
        lines += ["  by source and vector", *_indented(_count_table(found["by_source"]))]
        if any(len(entry["sources"]) > 1 for entry in found["by_vector"]):
            lines += ["  by vector", *_indented(_count_table(found["by_vector"]))]
        lines += [
            "  latency from raise to delivery, ns of the machine's clock",
            *_indented(_latencies(found["by_source"])),
        ]
    elif not raised:
        lines.append("  belljar's devices raised nothing" if found["not_known"] else "  nothing was raised")
    if found.get("messages"):
        lines.append(f"  {plural(found['messages'], 'message')} sent")
    for cpu, counts in found["engine"].items():
        told = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        lines.append(f"  vCPU {cpu}, as the engine counts: {told or 'nothing'}")
    if found["not_known"]:
        lines.append(f"  {found['not_known']}")
    return lines


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _count_table(entries: list[dict[str, Any]]) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("vector", "source", "raised", "delivered", "merged", "lost", "spurious", "taken by")
    ]
    for entry in entries:
        takers = ", ".join(
            f"vCPU {cpu} {count}" if cpu != "polled" else f"polling {count}" for cpu, count in entry["by_vcpu"].items()
        )
        numbers = (_number(entry[name]) for name in ("raised", "delivered", "merged", "lost", "spurious"))
        source = entry["source"] if "source" in entry else ", ".join(entry["sources"])
        rows.append((_vector(entry["vector"]), source, *numbers, takers or "-"))
    return table(rows)


def _latencies(entries: list[dict[str, Any]]) -> list[str]:
    rows: list[tuple[str, ...]] = [("vector", "source", "count", "min", "median", "p99", "max")]
    for entry in entries:
        latency = entry["latency"]
        if latency["count"]:
            row = (str(latency["count"]), *(str(latency[name]) for name in LATENCIES))
            rows.append((_vector(entry["vector"]), entry["source"], *row))
    return table(rows) if len(rows) > 1 else ["  none was measured"]


def _vector(vector: int | None) -> str:
    return "-" if vector is None else f"{vector:#04x}"


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)
