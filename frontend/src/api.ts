/** What the server answers, and how it is asked. */

export type Role = "admin" | "annotator" | "viewer";
export type Scope = "generate" | "label" | "read" | "admin";
export type Me = { id: number; name: string; role: Role; scopes: Scope[]; csrf: string; models: string[] };
export type Chat = { id: number; title: string; created_at: number };
export type Opinion = { thumb: 1 | -1 | 0; reasons: string[]; comment: string };
export type Said = { role: "system" | "user" | "assistant"; content: string };
export type Message = Said & {
  id: number;
  parent_id: number | null;
  model: string;
  details: { finish?: "stop" | "length" | "stopped" };
  opinion: Opinion | null;
  edit: string | null;
};
export type Sampling = Partial<
  Record<"temperature" | "top_p" | "top_k" | "min_p" | "repetition_penalty" | "max_tokens" | "seed", number>
>;
export type Verdict = {
  outcome: "ranked" | "skipped" | "flagged";
  ranks: Record<string, number>;
  grades: Record<string, number>;
  reason: string;
  seconds: number;
};
export type Task = {
  comparison: number;
  prompt: Said[];
  answers: { id: number; content: string }[];
  verdict: Verdict | null;
};
export type Judged = { comparison: number; outcome: Verdict["outcome"]; created_at: number };
export type Progress = {
  mine: number;
  today: number;
  per_hour: number;
  median_seconds: number | null;
  open: number;
  total: number;
  finished: number;
};
export type Agreement = {
  annotators: { name: string; rankings: number; consensus: number | null; reward_model: number | null }[];
  alpha: number | null;
  pairs: { one: string; other: string; kappa: number | null; items: number }[];
};
export type Strength = {
  name: string;
  strength: number;
  low: number;
  high: number;
  wins: number;
  losses: number;
  ties: number;
  comparisons: number;
};
export type User = { id: number; name: string; role: Role; created_at: number; disabled_at: number | null };
export type Key = {
  id: number;
  user: string;
  name: string;
  scopes: Scope[];
  created_at: number;
  revoked_at: number | null;
};
export type Entry = { id: number; user: string | null; action: string; details: unknown; created_at: number };

/** The server refused; `status` 0 means that it was not reached. */
export class ApiError extends Error {
  status: number;
  code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }

  /** Whether the same request may succeed later. */
  get passing(): boolean {
    return this.status === 0 || this.status === 401 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

let csrf = "";

/** The token that every change of this session is sent with. */
export function useCsrf(token: string): void {
  csrf = token;
}

/** Ask and get JSON. */
export async function ask<T>(method: "GET" | "POST" | "PATCH" | "DELETE", path: string, body?: unknown): Promise<T> {
  const answer = await answered(method, path, body);
  try {
    return (await answer.json()) as T;
  } catch (error) {
    throw new ApiError(0, "", String(error)); // the body broke off
  }
}

type Event = { text?: string; message?: number; finish?: string; error?: { message: string; code?: string } };

/** Say an answer piece by piece; ends when the server said which message it became, else throws ApiError. */
export async function stream(
  path: string,
  body: unknown,
  signal: AbortSignal,
  heard: (text: string) => void,
): Promise<number> {
  const answer = await answered("POST", path, body, signal);
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop()!;
      for (const line of lines) {
        if (!line.startsWith("data:") || line.endsWith("[DONE]")) continue;
        const event = JSON.parse(line.slice(5)) as Event;
        if (event.error) throw new ApiError(500, event.error.code ?? "", event.error.message);
        if (event.text) heard(event.text);
        if (event.message !== undefined) return event.message;
      }
    }
  } catch (error) {
    throw error instanceof ApiError || signal.aborted ? error : new ApiError(0, "", String(error));
  } finally {
    reader.cancel().catch(() => {});
  }
  throw new ApiError(0, "", "the stream ended early");
}

async function answered(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = method === "GET" ? {} : { "X-CSRF-Token": csrf };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response: Response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? null : JSON.stringify(body), signal });
  } catch (error) {
    throw signal?.aborted ? error : new ApiError(0, "", String(error));
  }
  if (response.ok) return response;
  const said = (await response.json().catch(() => null)) as { error?: { message?: string; code?: string } } | null;
  const { code, message } = said?.error ?? {};
  throw new ApiError(response.status, code ?? "", message ?? `${response.status} ${response.statusText}`);
}

/** A key under which the server does the same thing only once. Works without https, unlike crypto.randomUUID. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
