//! The web page, in a browser on the router.

use std::time::Duration;

use balance_lab::http::Query;
use balance_lab::{Browser, Family, Lab, Stream, ready_with};
use serde_json::json;

const PORT: u16 = 8686;
const URL: &str = "http://127.0.0.1:8686/";
/// What is back is used at once.
const MONITOR: &str = "[monitor]\nup_after = \"300ms\"\nflap_window = \"10ms\"\n";
/// How long anything may take on a busy machine that is not about time.
const SOON: Duration = Duration::from_secs(30);
const TOKEN: &str = "/var/lib/balance/main/web-token";
/// Names of what can be used on the page that say nothing.
const NAMELESS: &str = "[...document.querySelectorAll('button, input, a, meter, [role=region]')].filter((one) => one.offsetParent \
    && !(one.textContent.trim() || one.ariaLabel || one.getAttribute('aria-labelledby') || one.labels?.length)).length";

#[test]
fn the_page_shows_what_happens_and_changes_things_with_the_token_only() {
    if !ready_with(Browser::PROGRAMS) {
        return;
    }
    let lab = Lab::new().unwrap();
    lab.write_config(&format!("{}\n{MONITOR}[web]\nlisten = \"127.0.0.1:{PORT}\"\n", lab.config())).unwrap();
    let _daemon = lab.start_up().unwrap();
    lab.router().sysctls(&[("net.netfilter.nf_conntrack_acct", "1")]).unwrap();
    let ask = |query: Query<'_>| query.at_port(lab.router(), PORT).unwrap();
    let put = |headers: &[&str]| {
        let query = Query::new("PUT", "/v1/isps/DSL/weight", r#"{"weight":9}"#);
        ask(Query { headers, ..query }).status
    };
    assert_eq!((put(&[]), put(&["Authorization: Bearer wrong"])), (403, 401));
    assert_eq!(ask(Query { headers: &["Host: evil.example"], ..Query::get("/") }).status, 421);
    let front = ask(Query::get("/"));
    assert!(
        front.head.contains("content-security-policy: default-src 'none'; script-src 'self';"),
        "{}",
        front.head
    );
    assert_eq!(lab.isp_status("DSL").unwrap()["weight"], 1);

    let browser = Browser::start(lab.router()).unwrap();
    browser.open(URL).unwrap();
    browser.wait(SOON, "document.querySelectorAll('.card').length === 2").unwrap();
    browser.wait(SOON, "document.getElementById('summary').textContent === 'All ISPs work'").unwrap();
    browser.wait(SOON, "document.querySelectorAll('#events li').length >= 2").unwrap();
    let traffic = Stream::start(lab.lan(), 2000, 20, Family::V4).unwrap();
    let highest = "Math.max(...charts.data[0].slice(1).flat().filter(Number.isFinite))";
    browser.wait(SOON, &format!("{highest} > 0.1 && charts.data[0][0].length > 5")).unwrap();
    let drawn = "document.querySelector('#received canvas').toDataURL()";
    let before = browser.value(drawn).unwrap();
    browser.wait(SOON, &format!("{drawn} !== {before}")).unwrap();
    browser.wait(SOON, "document.querySelectorAll('#flows tr').length >= 15").unwrap();

    let phone = json!({ "width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true });
    browser.devtools("Emulation.setDeviceMetricsOverride", &phone).unwrap();
    browser.wait(SOON, "innerWidth === 390 && document.documentElement.scrollWidth <= 390").unwrap();
    let [light, dark] = ["light", "dark"].map(|scheme| {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.devtools("Emulation.setEmulatedMedia", &media).unwrap();
        browser.value("getComputedStyle(document.body).backgroundColor").unwrap()
    });
    assert_ne!(light, dark);
    assert_eq!(browser.value(NAMELESS).unwrap(), 0);
    let landmarks = "['header', 'main', 'footer', 'h1'].every((one) => document.querySelectorAll(`body ${one}`).length === 1)";
    assert_eq!(browser.value(landmarks).unwrap(), true);

    assert!(shows_deaths_in_time(&lab, &browser), "no death of three was shown within two seconds");
    drop(traffic);

    // By keyboard alone.
    browser.value("document.querySelector('[data-isp=DSL] .weight').focus()").unwrap();
    browser.value("document.querySelector('[data-isp=DSL] .weight').select()").unwrap();
    browser.keys("7\u{e007}").unwrap();
    browser
        .wait(SOON, "document.getElementById('login').open && document.activeElement.id === 'token'")
        .unwrap();
    let token = lab.router().run(|| std::fs::read_to_string(TOKEN)).unwrap();
    assert_eq!(browser.console().unwrap(), [""; 0]);
    browser.keys("not the token\u{e007}").unwrap();
    browser.wait(SOON, "document.getElementById('login-trouble').textContent.includes('wrong')").unwrap();
    assert_eq!(lab.isp_status("DSL").unwrap()["weight"], 1);
    browser.keys(&format!("{}\u{e007}", token.trim())).unwrap();
    lab.wait_isp("DSL", |isp| isp["weight"] == 7).unwrap();
    // The wrong token is in the console, and nothing else.
    let console = browser.console().unwrap();
    assert!(console.len() == 1 && console[0].contains("401"), "{console:?}");
    screenshot(&lab, &browser);
}

/// Whether an ISP's death is shown within two seconds of the event. Of three, as a busy machine may be late for one.
fn shows_deaths_in_time(lab: &Lab, browser: &Browser<'_>) -> bool {
    let shown = "document.querySelector('[data-isp=CABLE] .state').textContent";
    let watch = format!(
        "new MutationObserver(() => {{ if ({shown} === 'down') window.shownAt ??= Date.now(); }})\
         .observe(document.getElementById('isps'), {{ subtree: true, childList: true, characterData: true }})"
    );
    browser.value(&watch).unwrap();
    let delay = "shownAt - Date.parse(document.querySelector('#events time').dateTime)";
    (0..3).any(|_| {
        browser.wait(SOON, &format!("{shown} === 'up'")).unwrap();
        browser.value("window.shownAt = null").unwrap();
        lab.isp("CABLE").die_silently().unwrap();
        browser
            .wait(SOON, "document.querySelector('#events li').textContent.includes('CABLE is down')")
            .unwrap();
        browser.wait(SOON, "window.shownAt !== null").unwrap();
        let delay = browser.value(delay).unwrap();
        println!("the death of an ISP is shown {delay} ms after the event");
        lab.isp("CABLE").revive().unwrap();
        delay.as_i64().unwrap() < 2000
    })
}

/// Keeps how it looks, for the docs, if somebody wants that.
fn screenshot(lab: &Lab, browser: &Browser<'_>) {
    let Some(file) = std::env::var_os("BALANCE_SCREENSHOT") else { return };
    lab.wait_up("CABLE").unwrap();
    let traffic = Stream::start(lab.lan(), 1500, 40, Family::V4).unwrap();
    browser.devtools("Emulation.clearDeviceMetricsOverride", &json!({})).unwrap();
    let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    browser.devtools("Emulation.setEmulatedMedia", &media).unwrap();
    browser.open(URL).unwrap();
    browser.wait(SOON, "charts && charts.data[0][0].length > 20").unwrap();
    let shot = browser.devtools("Page.captureScreenshot", &json!({ "format": "png" })).unwrap();
    let encoded = shot["data"].as_str().unwrap();
    let mut decoder = lab.router().command("base64");
    decoder.arg("-d").stdin(std::process::Stdio::piped()).stdout(std::fs::File::create(file).unwrap());
    let mut child = decoder.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), encoded.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    drop(traffic);
}
