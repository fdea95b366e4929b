"""What a Prometheus answers as data frames, and the transformations that boards make of them; as Grafana does it."""

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.labs.prometheus import Prometheus

Value = float | str | None


class Unknown(Exception):
    """Something of a dashboard that this renderer does not know."""


def ask(prometheus: Prometheus, path: str, **parameters: object) -> list[dict[str, Any]]:
    """Return what it answers, however long that takes on a machine that has much else to do."""
    url = f"{prometheus.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=120) as answer:
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return result


@dataclass(frozen=True, slots=True)
class Field:
    """A column, or a series; `shown` is the name that a transformation gave it."""

    name: str
    values: list[Value]
    labels: Mapping[str, str] = field(default_factory=dict)
    ref: str = ""
    shown: str | None = None
    legend: str = ""

    @property
    def title(self) -> str:
        return self.shown or self.legend or self.name


Frame = list[Field]


def table(ref: str, several: bool, result: Sequence[Mapping[str, Any]], at: float) -> list[Frame]:
    """Make one frame of an instant query in table format: time, each label, the value."""
    if not result:
        return []
    names = sorted({name for one in result for name in one["metric"]})
    columns = [Field("Time", [at * 1000 for _ in result], ref=ref)]
    columns += [Field(name, [one["metric"].get(name, "") for one in result], ref=ref) for name in names]
    values: list[Value] = [float(one["value"][1]) for one in result]
    return [[*columns, Field(f"Value #{ref}" if several else "Value", values, ref=ref)]]


def series(
    ref: str, legend: str, expr: str, result: Sequence[Mapping[str, Any]], times: Sequence[float]
) -> list[Frame]:
    """Make a frame of each series of a query, with nothing where it has no sample."""
    frames = []
    for one in result:
        labels = one["metric"]
        samples = {round(float(at), 3): float(value) for at, value in one.get("values", [one.get("value")])}
        values: list[Value] = [samples.get(round(at, 3)) for at in times]
        name = _legend(legend, labels, expr, len(result))
        stamps: list[Value] = [at * 1000 for at in times]
        frames.append([Field("Time", stamps, ref=ref), Field("Value", values, labels, ref, legend=name)])
    return frames


def _legend(legend: str, labels: Mapping[str, str], expr: str, series: int) -> str:
    if legend not in ("", "__auto"):
        return re.sub(r"{{\s*(\w+)\s*}}", lambda match: labels.get(match[1], ""), legend)
    if len(labels) == 1 and series > 1:
        return next(iter(labels.values()))
    inner = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{{{inner}}}" if labels else "Value" if series == 1 else expr


def transform(frames: list[Frame], transformations: Sequence[Mapping[str, Any]]) -> list[Frame]:
    """Apply the transformations in turn; raises Unknown for one that is not known, or an option of it that is not."""
    for one in transformations:
        if one["id"] not in _KNOWN:
            raise Unknown(f"transformation {one['id']!r}")
        known, apply = _KNOWN[one["id"]]
        if odd := set(one["options"]) - known:
            raise Unknown(f"option {sorted(odd)} of transformation {one['id']!r}")
        if not one.get("disabled"):
            frames = apply(frames, one["options"])
    return frames


def distinct(frame: Frame) -> Frame:
    """Number the fields of one frame that are called the same: Time 1, Time 2."""
    titles = [each.title for each in frame]
    seen: dict[str, int] = {}
    named = []
    for each in frame:
        seen[each.title] = seen.get(each.title, 0) + 1
        several = titles.count(each.title) > 1
        named.append(replace(each, shown=f"{each.title} {seen[each.title]}") if several else each)
    return named


def _filter(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    def chosen(rule: Mapping[str, Any] | None, title: str) -> bool:
        if not rule:
            return False
        pattern = rule.get("pattern")
        return title in rule.get("names", []) or bool(pattern and re.search(pattern.strip("/"), title))

    include, exclude = options.get("include"), options.get("exclude")
    kept = [[f for f in frame if not chosen(exclude, f.title)] for frame in frames]
    if include:
        kept = [[f for f in frame if chosen(include, f.title)] for frame in kept]
    return [frame for frame in kept if frame]


def _join(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    by, mode = options["byField"], options.get("mode", "outer")
    if mode not in ("outer", "inner"):
        raise Unknown(f"mode {mode!r} of joinByField")
    with_key = [frame for frame in frames if any(f.title == by for f in frame)]
    keys: dict[Value, None] = {}
    tables = []
    for frame in with_key:
        key = next(f for f in frame if f.title == by)
        rows = {value: row for row, value in enumerate(key.values)}
        tables.append((frame, key, rows))
        keys |= dict.fromkeys(rows)
    if mode == "inner":
        keys = {key: None for key in keys if all(key in rows for _, _, rows in tables)}
    if not tables:
        return frames
    joined = [replace(tables[0][1], values=list(keys))]
    for frame, key, rows in tables:
        for each in frame:
            if each is not key:
                values = [each.values[rows[at]] if at in rows else None for at in keys]
                joined.append(replace(each, values=values))
    return [distinct(joined)]


def _organize(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    order, rename = options.get("indexByName", {}), options.get("renameByName", {})
    left_out, kept = options.get("excludeByName", {}), options.get("includeByName", {})
    organized = []
    for frame in frames:
        fields = [f for f in distinct(frame) if not left_out.get(f.title) and (not kept or kept.get(f.title))]
        fields.sort(key=lambda f: order.get(f.title, len(order)))
        organized.append([replace(f, shown=rename.get(f.title) or f.shown) for f in fields])
    return organized


def _sort(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    for rule in reversed(options["sort"]):
        frames = [order(frame, rule["field"], bool(rule.get("desc"))) for frame in frames]
    return frames


def order(frame: Frame, title: str, descending: bool) -> Frame:
    """Sort the rows by a field; what has no value comes last, or first in descending order."""
    by = next((f for f in frame if f.title == title), None)
    if by is None:
        return frame

    def key(row: int) -> tuple[bool, float, str]:
        value = by.values[row]
        return value is None, value if isinstance(value, float) else 0, value.lower() if isinstance(value, str) else ""

    rows = sorted(range(len(by.values)), key=key, reverse=descending)
    return [replace(f, values=[f.values[row] for row in rows]) for f in frame]


_KNOWN: dict[str, tuple[set[str], Callable[[list[Frame], Mapping[str, Any]], list[Frame]]]] = {
    "filterFieldsByName": ({"include", "exclude"}, _filter),
    "joinByField": ({"byField", "mode"}, _join),
    "organize": ({"excludeByName", "indexByName", "renameByName", "includeByName"}, _organize),
    "sortBy": ({"fields", "sort"}, _sort),
}
