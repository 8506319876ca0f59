import { compact, cost, duration, number } from "../../lib/format";
import type { Amounts } from "../../lib/operator";

export interface Measure {
  id: string;
  name: string;
  /** As the end of “12 …”. */
  words: string;
  of: (amounts: Amounts) => number;
  format: (value: number) => string;
  short: (value: number) => string;
  /** Only whole numbers. */
  whole?: true;
  /** It is not known of models. */
  ofRuns?: true;
}

export const MEASURES: Measure[] = [
  { id: "tokens", name: "tokens", words: "tokens", of: (one) => one.total_tokens, format: number, short: compact, whole: true },
  { id: "cost", name: "cost", words: "were spent", of: (one) => one.cost ?? 0, format: cost, short: cost },
  { id: "runs", name: "runs", words: "runs ended", of: (one) => one.runs ?? 0, format: number, short: compact, whole: true, ofRuns: true },
  { id: "failed", name: "failed runs", words: "runs failed", of: (one) => one.failed ?? 0, format: number, short: compact, whole: true, ofRuns: true },
  { id: "time", name: "run time", words: "of run time", of: (one) => one.executing_s ?? 0, format: duration, short: duration, ofRuns: true },
];

/** What the URL asks for, with what it leaves out. */
export interface Shown {
  by: string;
  measure: Measure;
  /** Days of UTC, both counted. */
  since: string;
  until: string;
  owner?: string;
  graph?: string;
  model?: string;
}
