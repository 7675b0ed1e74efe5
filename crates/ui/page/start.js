// Gives back the code of the link, once, and takes it out of the address.
const code = location.hash.slice(1);
const said = document.getElementById("start");
if (/^[0-9a-f]{64}$/.test(code)) {
  history.replaceState(null, "", "/start");
  const answer = await fetch("/start", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ code }),
  });
  if (answer.ok) {
    location.replace("/");
  } else {
    said.textContent = "This link was used already, or is of a program that has ended. Press Enter in the terminal of `palinode ui` for another one.";
  }
}
