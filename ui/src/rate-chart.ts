// The hash rate over the last two minutes, as a line; its caption says the same in words.

import { element, setText, svgElement } from "./elements";
import { rate } from "./format";
import type { RatePoint } from "./rate-meter";

const WIDTH = 600;
const HEIGHT = 120;
const SECONDS = 120;

export class RateChart {
  readonly root: HTMLElement;
  private readonly area = svgElement("path", { class: "area" });
  private readonly line = svgElement("polyline", { class: "line" });
  private readonly caption = element("figcaption");

  constructor() {
    const svg = svgElement(
      "svg",
      // The caption says what it shows.
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      ...[0.25, 0.5, 0.75].map((part) =>
        svgElement("line", { class: "grid", x1: "0", x2: `${WIDTH}`, y1: `${part * HEIGHT}`, y2: `${part * HEIGHT}` }),
      ),
      this.area,
      this.line,
    );
    this.root = element("figure", { class: "chart" }, svg, this.caption);
  }

  show(points: readonly RatePoint[]): void {
    const last = points.at(-1);
    if (!last) {
      setText(this.caption, "No hash rate has been measured yet.");
      return;
    }
    const highest = Math.max(...points.map((point) => point.rate));
    const scale = highest > 0 ? (HEIGHT * 0.92) / highest : 0;
    const corners = points.map((point) => {
      const x = WIDTH - ((last.time - point.time) / SECONDS) * WIDTH;
      return `${x.toFixed(1)},${(HEIGHT - point.rate * scale).toFixed(1)}`;
    });
    this.line.setAttribute("points", corners.join(" "));
    const left = corners[0]!.split(",")[0];
    this.area.setAttribute("d", `M${left},${HEIGHT} L${corners.join(" L")} L${WIDTH},${HEIGHT} Z`);
    setText(this.caption, `Now ${rate(last.rate)}; highest of the last two minutes ${rate(highest)}`);
  }
}
