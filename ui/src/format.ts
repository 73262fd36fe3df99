// Numbers as people read them.

const WHOLE = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const DIGITS = new Intl.NumberFormat("en-GB", { maximumSignificantDigits: 3 });
const SCALES: [number, string][] = [
  [1e12, "trillion"],
  [1e9, "billion"],
  [1e6, "million"],
];

export const whole = (value: number): string => WHOLE.format(value);

/** A large number in three digits: "1.23 billion". */
export function large(value: number): string {
  const scale = SCALES.find(([size]) => value >= size);
  return scale ? `${DIGITS.format(value / scale[0])} ${scale[1]}` : whole(value);
}

export const rate = (perSecond: number): string => `${large(perSecond)} hashes/s`;

export const plural = (count: number, noun: string): string => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;

const UNITS: [number, string][] = [
  [365.25 * 86400, "years"],
  [86400, "days"],
  [3600, "h"],
  [60, "min"],
];

/** Seconds in two digits or so of a fitting unit, as pow/mining/progress.py has them. */
export function duration(seconds: number): string {
  const unit = UNITS.find(([size]) => seconds >= 2 * size);
  const value = seconds / (unit?.[0] ?? 1);
  const digits = value < 10 ? value.toFixed(1) : whole(value);
  return `${digits} ${unit?.[1] ?? "s"}`;
}

/** An error as a sentence. */
export const sentence = (error: unknown): string => (error instanceof Error ? error.message : String(error));
