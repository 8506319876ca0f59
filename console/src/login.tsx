/** The form for a key or a token; an application's own login may set a cookie instead, and this form is never seen. */
import { useState } from "preact/hooks";
import { get } from "./lib/api";
import { type Credential, type Me, locked, logIn, logOut, me, share } from "./lib/session";
import { Button } from "./lib/ui";

export function Login() {
  const [kind, setKind] = useState<Credential["kind"]>("key");
  const [secret, setSecret] = useState("");
  const [refused, setRefused] = useState<string>();
  const enter = async () => {
    logIn({ kind, secret: secret.trim() });
    try {
      me.value = await get<Me>("/me");
      locked.value = false;
      share();
    } catch (error) {
      logOut({ tell: false });
      setRefused(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <main class="login">
      <h1>Runlane</h1>
      <p>This server asks who you are.</p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void enter();
        }}
      >
        <label>
          What you have
          <select value={kind} onChange={(event) => setKind(event.currentTarget.value as Credential["kind"])}>
            <option value="key">API key</option>
            <option value="bearer">Bearer token</option>
          </select>
        </label>
        <label>
          {kind === "key" ? "API key" : "Bearer token"}
          <input
            type="password"
            autocomplete="off"
            spellcheck={false}
            required
            value={secret}
            onInput={(event) => setSecret(event.currentTarget.value)}
          />
        </label>
        <Button kind="primary" type="submit">
          Log in
        </Button>
        {refused && (
          <p class="refusal" role="alert">
            {refused}
          </p>
        )}
      </form>
      <p class="quiet">
        It stays in this browser's tabs of the console, and is gone with them. A key of an operator is made with{" "}
        <code>runlane keys new NAME --scope admin</code>.
      </p>
    </main>
  );
}
