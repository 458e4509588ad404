/** Who is here, on which page, in which language and light. */

import { ApiError, ask, useCsrf, type Me, type Scope } from "./api.ts";
import { en, type Words } from "./words/en.ts";
import { zh } from "./words/zh.ts";

const LANGUAGES = { en, zh };
/** A language of the pages. */
export type Language = keyof typeof LANGUAGES;
/** How light the pages are. */
export type Theme = "system" | "light" | "dark";

class Session {
  me = $state<Me | null>(null);
  asked = $state(false);
  notice = $state<"" | "passwordChanged">("");
  route = $state<string[]>(routeNow());
  language = $state<Language>(
    remembered("language", ["en", "zh"]) ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en"),
  );
  theme = $state<Theme>(remembered("theme", ["system", "light", "dark"]) ?? "system");
  words = $derived<Words>(LANGUAGES[this.language]);
  /** How numbers and dates are written: as this browser's owner has it, where that is the language of the pages. */
  locale = $derived(navigator.languages.find((one) => one.toLowerCase().startsWith(this.language)) ?? this.language);

  constructor() {
    addEventListener("hashchange", () => (this.route = routeNow()));
  }

  may(scope: Scope): boolean {
    return this.me?.scopes.includes(scope) ?? false;
  }

  enter(me: Me): void {
    useCsrf(me.csrf);
    this.me = me;
    this.notice = "";
  }

  leave(): void {
    this.me = null;
  }

  async find(): Promise<void> {
    try {
      this.enter(await ask<Me>("GET", "/api/me"));
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) throw error;
    } finally {
      this.asked = true;
    }
  }

  /** What to tell a person about a failure; somebody whose session ended is led to the log-in. */
  told(error: unknown): string {
    if (!(error instanceof ApiError)) return String(error);
    if (error.status === 401 && this.me) this.leave();
    if (error.code === "wrong_csrf") {
      this.find().catch(() => {}); // another tab has logged in anew
      return this.words.loggedInElsewhere;
    }
    if (error.status === 0) return this.words.unreachable;
    if (error.status === 404) return this.words.notFound;
    if (error.status === 429 || error.status === 503) return this.words.busy;
    return error.message;
  }
}

/** The one session of this tab. */
export const session = new Session();

/** Keep a choice in this browser. */
export function remember(name: string, value: string): void {
  localStorage.setItem(name, value);
}

/** Go to a page: `goTo("chat", 12)` is `#/chat/12`. */
export function goTo(...route: (string | number)[]): void {
  location.hash = `#/${route.join("/")}`;
}

/** A number in the person's language. */
export function number(value: number, digits = 0): string {
  return value.toLocaleString(session.locale, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A moment in the person's language. */
export function moment(milliseconds: number): string {
  return new Date(milliseconds).toLocaleString(session.locale, { dateStyle: "medium", timeStyle: "short" });
}

function remembered<T extends string>(name: string, known: readonly T[]): T | undefined {
  return known.find((value) => value === localStorage.getItem(name));
}

function routeNow(): string[] {
  return location.hash.replace(/^#\/?/, "").split("/").filter(Boolean);
}
