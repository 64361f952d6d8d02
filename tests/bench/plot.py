"""Line charts as SVG: enough for RESULTS.md."""
import dataclasses
import html
import math

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 72, 24, 84, 56  # margins: axes' numbers, title and legend
INK, FAINT, GRID = "#222222", "#666666", "#e4e4e4"
# Told apart by people who don't see some colours, and by their marks.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a7a7a")
MARKS = ("circle", "square", "diamond", "triangle", "circle")


@dataclasses.dataclass
class Series:
    name: str
    points: list  # (x, y), both above 0
    color: int
    dashed: bool = False
    marks: bool = True


@dataclasses.dataclass
class LogAxis:
    """From low to high over the pixels from begin to end, each power of ten as long."""
    low: float
    high: float
    begin: float
    end: float

    def at(self, value):
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self):
        """Powers of ten, with 2 and 5 between them where there are few."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        steps = (1, 2, 5) if last - first <= 2 else (1,)
        values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        return [value for value in values if self.low <= value <= self.high]


@dataclasses.dataclass
class Axis:
    """From 0 to high over the pixels from begin to end."""
    high: float
    begin: float
    end: float

    def at(self, value):
        return self.begin + value / self.high * (self.end - self.begin)

    def ticks(self):
        """Four to eight round numbers."""
        power = 10.0 ** math.floor(math.log10(self.high / 4))
        step = next(power * n for n in (1, 2, 5, 10) if self.high / (power * n) <= 8)
        return [step * i for i in range(int(self.high / step) + 1)]


def log_axis(values, begin, end):
    low, high = min(values), max(values)
    margin = max(1.12, (high / low) ** 0.04)
    return LogAxis(low / margin, high * margin, begin, end)


def short(value):
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value:,g}"


def text(x, y, content, anchor="middle", size=12, color=INK, extra=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
            f'fill="{color}"{extra}>{html.escape(content)}</text>')


def mark(kind, x, y, color):
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>'
    corners = {"square": ((-3, -3), (3, -3), (3, 3), (-3, 3)),
               "diamond": ((0, -4.5), (4.5, 0), (0, 4.5), (-4.5, 0)),
               "triangle": ((0, -4.5), (4, 3), (-4, 3))}[kind]
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{path}" fill="{color}"/>'


def line(series, x_axis, y_axis):
    color = COLORS[series.color]
    places = [(x_axis.at(x), y_axis.at(y)) for x, y in series.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="5 4"' if series.dashed else ""
    marks = [mark(MARKS[series.color], x, y, color) for x, y in places] if series.marks else []
    return [f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>',
            *marks]


def legend(all_series):
    parts, x = [], LEFT
    for series in all_series:
        color = COLORS[series.color]
        dash = ' stroke-dasharray="5 4"' if series.dashed else ""
        parts.append(f'<line x1="{x}" y1="60" x2="{x + 26}" y2="60" stroke="{color}" '
                     f'stroke-width="2"{dash}/>')
        if series.marks:
            parts.append(mark(MARKS[series.color], x + 13, 60, color))
        parts.append(text(x + 32, 64, series.name, "start"))
        x += 56 + 7 * len(series.name)
    return parts


def grid(x_axis, y_axis, x_label, y_label, x_ticks):
    parts = []
    for value in y_axis.ticks():
        y = y_axis.at(value)
        parts += [f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" '
                  f'stroke="{GRID}"/>', text(LEFT - 8, y + 4, short(value), "end", color=FAINT)]
    for value in x_ticks:
        x = x_axis.at(value)
        parts += [f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" '
                  f'stroke="{GRID}"/>',
                  text(x, HEIGHT - BOTTOM + 18, short(value), color=FAINT)]
    middle = (TOP + HEIGHT - BOTTOM) / 2
    return parts + [text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x_label),
                    text(20, middle, y_label, extra=f' transform="rotate(-90 20 {middle:.1f})"')]


def chart(labels, all_series, x_ticks, y_log):
    """The SVG's text. `labels`: the title, and what the axes show; x is logarithmic."""
    title, x_label, y_label = labels
    values = [y for s in all_series for _, y in s.points]
    x_axis = log_axis(x_ticks, LEFT, WIDTH - RIGHT)
    y_axis = log_axis(values, HEIGHT - BOTTOM, TOP) if y_log else \
        Axis(1.05 * max(values), HEIGHT - BOTTOM, TOP)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
             f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
             text(LEFT, 32, title, "start", 16),
             *grid(x_axis, y_axis, x_label, y_label, x_ticks), *legend(all_series)]
    for series in all_series:
        parts += line(series, x_axis, y_axis)
    return "\n".join([*parts, "</svg>", ""])
