// Turns a count of hashes, looked at now and then, into a rate.

const KEPT_SECONDS = 120;
// Slices of a workflow end about once a second: over less than some of them the rate would jump.
const WINDOW_SECONDS = 5;

export interface RatePoint {
  /** Seconds from any moment. */
  time: number;
  rate: number;
}

export class RateMeter {
  private counts: { time: number; hashes: number }[] = [];
  private points: RatePoint[] = [];

  record(time: number, hashes: number): void {
    const last = this.counts.at(-1);
    // A server that began anew counts from zero again.
    if (last && (hashes < last.hashes || time < last.time)) this.counts = this.points = [];
    else if (last && time === last.time) return;
    this.counts.push({ time, hashes });
    while (this.counts.length > 2 && time - this.counts[1]!.time >= WINDOW_SECONDS) this.counts.shift();
    const first = this.counts[0]!;
    if (time > first.time) this.points.push({ time, rate: (hashes - first.hashes) / (time - first.time) });
    this.points = this.points.filter((point) => time - point.time <= KEPT_SECONDS);
  }

  get history(): readonly RatePoint[] {
    return this.points;
  }

  get latest(): number | undefined {
    return this.points.at(-1)?.rate;
  }
}
