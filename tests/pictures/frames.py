"""What a Prometheus answers as data frames, and the transformations that boards make of them; as Grafana does it."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Value = float | str | None
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Unknown(Exception):
    """Something of a dashboard that this renderer does not know."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column, or a series; `shown` is what it is called where that is not its name."""

    name: str
    values: list[Value]
    shown: str | None = None

    @property
    def title(self) -> str:
        return self.shown or self.name


Frame = list[Field]


def seconds(text: str) -> float:
    """Read a length of time, such as 1h30m."""
    if not re.fullmatch(r"(\d+[smhd])+", text):
        raise Unknown(f"length of time {text!r}")
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+)(.)", text))


def table(ref: str, several: bool, result: Sequence[Mapping[str, Any]], at: float) -> list[Frame]:
    """Make one frame of an instant query in table format: time, each label, the value."""
    if not result:
        return []
    names = sorted({name for one in result for name in one["metric"]})
    columns = [Field(name, [one["metric"].get(name, "") for one in result]) for name in names]
    value = Field(f"Value #{ref}" if several else "Value", [float(one["value"][1]) for one in result])
    return [[Field("Time", [at * 1000 for _ in result]), *columns, value]]


def series(legend: str, result: Sequence[Mapping[str, Any]], times: Sequence[float]) -> list[Frame]:
    """Make a frame of each series of a query, with nothing where it has no sample."""
    frames = []
    for one in result:
        samples = {round(float(at), 3): float(value) for at, value in one.get("values", [one.get("value")])}
        labels: Mapping[str, str] = one["metric"]
        name = re.sub(r"{{\s*(\w+)\s*}}", lambda match: labels.get(match[1], ""), legend)  # noqa: B023
        values: list[Value] = [samples.get(round(at, 3)) for at in times]
        frames.append([Field("Time", [at * 1000 for at in times]), Field("Value", values, name or None)])
    return frames


def transform(frames: list[Frame], transformations: Sequence[Mapping[str, Any]]) -> list[Frame]:
    """Apply the transformations in turn; raises Unknown for one that is not known, or an option of it that is not."""
    for one in transformations:
        if one["id"] not in _KNOWN:
            raise Unknown(f"transformation {one['id']!r}")
        known, apply = _KNOWN[one["id"]]
        if odd := set(one["options"]) - known:
            raise Unknown(f"option {sorted(odd)} of transformation {one['id']!r}")
        frames = apply(frames, one["options"])
    return frames


def distinct(frame: Frame) -> Frame:
    """Number the fields of one frame that are called the same: Time 1, Time 2."""
    several = {title for title, count in Counter(each.title for each in frame).items() if count > 1}
    seen = Counter[str]()
    named = []
    for each in frame:
        seen[each.title] += 1
        named.append(replace(each, shown=f"{each.title} {seen[each.title]}") if each.title in several else each)
    return named


def _filter(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    kept = [[field for field in frame if field.title in options["include"]["names"]] for frame in frames]
    return [frame for frame in kept if frame]


def _join(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    if options["mode"] != "outer":
        raise Unknown(f"mode {options['mode']!r} of joinByField")
    keyed = [(key, frame) for frame in frames for key in frame if key.title == options["byField"]]
    rows = [{value: row for row, value in enumerate(key.values)} for key, _ in keyed]
    keys = list(dict.fromkeys(value for each in rows for value in each))
    joined = [replace(key, values=keys) for key, _ in keyed[:1]]
    for (key, frame), at in zip(keyed, rows, strict=True):
        others = [field for field in frame if field is not key]
        joined += [replace(f, values=[f.values[at[each]] if each in at else None for each in keys]) for f in others]
    return [distinct(joined)] if keyed else frames


def _organize(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    order, rename, left_out = (options.get(f"{what}ByName", {}) for what in ("index", "rename", "exclude"))
    organized = []
    for frame in frames:
        fields = [field for field in distinct(frame) if not left_out.get(field.title)]
        fields.sort(key=lambda field: order.get(field.title, len(order)))
        organized.append([replace(field, shown=rename.get(field.title) or field.shown) for field in fields])
    return organized


def _sort(frames: list[Frame], options: Mapping[str, Any]) -> list[Frame]:
    for rule in reversed(options["sort"]):
        frames = [order(frame, rule["field"], bool(rule.get("desc"))) for frame in frames]
    return frames


def order(frame: Frame, title: str, descending: bool) -> Frame:
    """Sort the rows by a field; what has no value comes last, or first in descending order."""
    by = next((field for field in frame if field.title == title), None)
    if by is None:
        return frame

    def key(row: int) -> tuple[bool, float, str]:
        value = by.values[row]
        return value is None, value if isinstance(value, float) else 0, value.lower() if isinstance(value, str) else ""

    rows = sorted(range(len(by.values)), key=key, reverse=descending)
    return [replace(field, values=[field.values[row] for row in rows]) for field in frame]


_KNOWN: dict[str, tuple[set[str], Callable[[list[Frame], Mapping[str, Any]], list[Frame]]]] = {
    "filterFieldsByName": ({"include"}, _filter),
    "joinByField": ({"byField", "mode"}, _join),
    "organize": ({"excludeByName", "indexByName", "renameByName"}, _organize),
    "sortBy": ({"fields", "sort"}, _sort),
}
