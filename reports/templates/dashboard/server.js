// Asks the server.
export async function ask(path) {
  try {
    const answer = await fetch(path, { cache: "no-cache" });  // asks by ETag, and reads again what is new only
    return await answer.json();
  } catch {
    return null;
  }
}
