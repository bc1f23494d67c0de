// Who buys: without authentication whoever types a name, with it whom the ticket shop's token names.

const TOKEN = "onsale.token";
const USER = "onsale.user";

/**
 * The customer's token, if there is one. A ticket shop hands it over in the fragment of the page's address
 * (`#token=…`), which no server sees; it is taken out of there at once and kept until the tab is closed.
 */
export function takeToken() {
  const handed = new URLSearchParams(location.hash.slice(1)).get("token");
  if (handed) {
    sessionStorage.setItem(TOKEN, handed);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(TOKEN);
}

/** Forgets a token that is not good any more. */
export function dropToken() {
  sessionStorage.removeItem(TOKEN);
}

/** The user that a token names, or null if it can't be read. Whether it is good is for the API to say. */
export function userOf(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(part), (character) => character.charCodeAt(0));
    const { sub } = JSON.parse(new TextDecoder().decode(bytes));
    return typeof sub === "string" ? sub : null;
  } catch {
    return null;
  }
}

/** What was typed the last time. */
export function rememberedUser() {
  return localStorage.getItem(USER) ?? "";
}

/** Keeps what was typed for the next time. */
export function rememberUser(user) {
  localStorage.setItem(USER, user);
}
