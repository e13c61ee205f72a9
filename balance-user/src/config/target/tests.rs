//! What the short and the long form mean.

use super::*;

fn ask(text: &str) -> Ask {
    text.parse::<Target>().unwrap_or_else(|error| panic!("{text}: {error}")).ask().clone()
}

#[test]
fn every_short_form_is_understood_and_shown_as_it_was_written() {
    for text in [
        "1.1.1.1",
        "2620:fe::9",
        "tcp://9.9.9.9:443",
        "tcp://[2620:fe::9]:853",
        "tcp://example.com:22",
        "http://192.0.2.1/generate_204",
        "https://example.com/",
        "https://[2001:db8::1]:8443/health?full=1",
        "dns://9.9.9.9/example.com",
        "dns://2620:fe::9/example.com",
        "dns://[2620:fe::9]:5353/example.com",
        "gateway",
    ] {
        assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
    }
}

#[test]
fn a_page_has_its_scheme_s_port_and_what_is_usual_must_come_back() {
    let page = |text| match ask(text) {
        Ask::Page(page) => page,
        other => panic!("{other:?}"),
    };
    let plain = page("http://Example.COM/a?b");
    assert_eq!((plain.tls, plain.from.port, &*plain.path, plain.status), (false, 80, "/a?b", None));
    assert_eq!(plain.from.host, HostName::Name("example.com".to_owned()));
    let portal = page("https://192.0.2.1/generate_204");
    assert_eq!((portal.tls, portal.from.port, portal.status), (true, 443, Some(204)));
    assert_eq!(page("https://example.com").path, "/");
}

#[test]
fn addresses_are_for_their_family_and_names_and_gateways_for_both() {
    for (text, v4, v6) in [
        ("1.1.1.1", true, false),
        ("tcp://[2620:fe::9]:853", false, true),
        ("http://192.0.2.1/", true, false),
        ("dns://2620:fe::9/example.com", false, true),
        ("tcp://example.com:22", true, true),
        ("https://example.com/", true, true),
        ("gateway", true, true),
    ] {
        let target: Target = text.parse().unwrap();
        assert_eq!([Family::V4, Family::V6].map(|family| target.is_for(family)), [v4, v6], "{text}");
    }
}

#[test]
fn tables_say_more_and_look_like_the_short_form() {
    let text = r#"
        [[isp]]
        name = "A"
        device = "a0"
        monitor = { quorum = 5, resolvers = ["192.0.2.53", "2001:db8::53"] }
        targets = [
            { ping = "1.1.1.1", weight = 5 },
            { tcp = "[2620:fe::9]:443", weight = 5 },
            { url = "https://example.com/health", status = 204, body = "ok" },
            { dns = "9.9.9.9:5353", name = "Example.com.", answer = "203.0.113.7" },
            { gateway = true },
        ]"#;
    let config = crate::config::Config::parse(text, std::path::Path::new("balance.toml")).unwrap();
    let isp = &config.isps[0];
    let shown: Vec<_> = isp.targets.iter().map(|target| (target.to_string(), target.weight())).collect();
    let expected = [
        ("1.1.1.1", 5),
        ("tcp://[2620:fe::9]:443", 5),
        ("https://example.com/health", 1),
        ("dns://9.9.9.9:5353/example.com", 1),
        ("gateway", 1),
    ];
    assert_eq!(shown, expected.map(|(text, weight)| (text.to_owned(), weight)));
    let Ask::Page(page) = isp.targets[2].ask() else { panic!("a page") };
    assert_eq!((page.status, page.body.as_deref()), (Some(204), Some("ok")));
    let Ask::Name(query) = isp.targets[3].ask() else { panic!("a name") };
    assert_eq!(query.answer, "203.0.113.7".parse().ok());
    let resolvers: Vec<_> = isp.monitor.resolvers.iter().map(ToString::to_string).collect();
    assert_eq!(resolvers, ["192.0.2.53", "2001:db8::53"]);
}

#[test]
fn what_cannot_be_asked_is_refused() {
    for text in [
        "",
        "example.com",
        "ftp://example.com/",
        "tcp://9.9.9.9",
        "tcp://9.9.9.9:0",
        "tcp://9.9.9.9:65536",
        "tcp://2620:fe::9:853",
        "tcp://u@9.9.9.9:1",
        "tcp://127.0.0.1:1",
        "http://",
        "http://user:secret@example.com/",
        "http://exämple.com/",
        "https://[::1]/",
        "https://1.2.3/",
        "dns://9.9.9.9",
        "dns://9.9.9.9/",
        "dns://example.com/example.com",
        "dns://9.9.9.9:0/example.com",
        "dns://9.9.9.9/exa mple.com",
        "Gateway",
    ] {
        assert!(text.parse::<Target>().is_err(), "{text}");
    }
}
