/** What is being written, kept over a reload of this tab. */

/** The draft of a place, or nothing. */
export function draftOf(place: string): string {
  return sessionStorage.getItem(`draft ${place}`) ?? "";
}

/** Keep a draft; nothing written forgets it. */
export function keepDraft(place: string, text: string): void {
  if (text) sessionStorage.setItem(`draft ${place}`, text);
  else sessionStorage.removeItem(`draft ${place}`);
}
