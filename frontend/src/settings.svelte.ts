/** How answers are asked for, kept in this browser. */

import type { Sampling } from "./api.ts";

type Settings = { model: string; system: string; sampling: Sampling };

const PLACE = "settings";

/** The one set of settings of this tab. */
export const settings = $state<Settings>({
  model: "",
  system: "",
  sampling: {},
  ...(JSON.parse(localStorage.getItem(PLACE) ?? "{}") as Partial<Settings>),
});

/** Keep the settings. */
export function keepSettings(): void {
  localStorage.setItem(PLACE, JSON.stringify(settings));
}

/** The sampling without the fields that were left empty. */
export function samplingOf(sampling: Sampling): Sampling {
  return Object.fromEntries(Object.entries(sampling).filter(([, value]) => Number.isFinite(value)));
}
