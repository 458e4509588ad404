/** What a person is writing, kept over a reload of this tab and shown to nobody else. */

import { session } from "./session.svelte.ts";

/** The draft of a place, or nothing. */
export function draftOf(place: string): string {
  return sessionStorage.getItem(nameOf(place)) ?? "";
}

/** Keep a draft; nothing written forgets it. A browser without room for it keeps what it had. */
export function keepDraft(place: string, text: string): void {
  if (!text) return sessionStorage.removeItem(nameOf(place));
  try {
    sessionStorage.setItem(nameOf(place), text);
  } catch {
    return;
  }
}

function nameOf(place: string): string {
  return `draft ${session.me?.id} ${place}`;
}
