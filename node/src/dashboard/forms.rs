//! The forms of Scalaris' first page, for the scripts that post them: add a key, look one up, delete one.
//!
//! The answer is a small page with what Scalaris prints: the time it took, and the Erlang term that came of it.
//!
//! Keeps:
//! 1. No browser can be made to post one from another site's page: browsers say where a request comes from, scripts
//!    do not, and who says it is refused.
//!
//! Source: Scalaris, `docroot/index.yaws` and `src/webhelpers.erl`.

use super::keys;
use crate::error::{self, Report};
use crate::grpc::Api;
use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;
use serde_json::{Value as Json, json};
use std::borrow::Cow;
use std::time::Duration;

/// What a form asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `type=addkey`: writes a text, whatever is there.
    Add { key: String, value: String },
    /// `type=querykey`.
    Look { key: String },
    /// `type=deletekey`; the field `timeout` means nothing here.
    Delete { key: String },
}

/// Whether a posted form may be carried out.
pub(super) fn check_sender(headers: &HeaderMap) -> Result<(), Report> {
    let refused = |cause: &str| {
        let fix = "open / in the browser; scripts may post this form, without these headers";
        Err(Report::new(error::VALUE_MALFORMED, "the form was not carried out", cause, fix))
    };
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return refused("a browser sent it, and any site's page could have made it do so");
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/x-www-form-urlencoded") {
        return refused("its content type is not application/x-www-form-urlencoded");
    }
    Ok(())
}

/// A field's name or value: `+` is a space, `%41` an A. None if that gives no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8().ok().map(Cow::into_owned)
}

/// The form in a body.
pub(super) fn parse(body: &str) -> Result<Form, Report> {
    let field = |name: &str| {
        let found = body.split('&').find_map(|pair| {
            let (n, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(n).as_deref() == Some(name)).then_some(value)
        });
        let value = found.map(decoded);
        match value {
            Some(Some(value)) => Ok(value),
            Some(None) => Err(malformed(format!("the field \"{name}\" is not UTF-8"))),
            None => Err(malformed(format!("the field \"{name}\" is missing"))),
        }
    };
    let key =
        || field("key").and_then(|k| if k.is_empty() { Err(malformed("\"key\" is empty")) } else { Ok(k) });
    match field("type")?.as_str() {
        "addkey" => Ok(Form::Add { key: key()?, value: field("value")? }),
        "querykey" => Ok(Form::Look { key: key()? }),
        "deletekey" => Ok(Form::Delete { key: key()? }),
        other => Err(malformed(format!("the type \"{other}\" is neither addkey, querykey nor deletekey"))),
    }
}

pub(super) fn malformed(cause: impl Into<String>) -> Report {
    let fix = "post type=addkey&key=K&value=V, type=querykey&key=K or type=deletekey&key=K";
    Report::new(error::VALUE_MALFORMED, "the form is not one of Scalaris' first page", cause, fix)
}

/// Carries a form out.
pub(super) async fn answer(api: &Api, form: &Form) -> keys::Answer {
    match form {
        Form::Add { key, value } => {
            keys::answer(api, "put", &json!({ "key": key, "value": { "type": "string", "text": value } }))
                .await
        }
        Form::Look { key } => keys::answer(api, "get", &json!({ "key": key })).await,
        Form::Delete { key } => keys::answer(api, "delete", &json!({ "key": key })).await,
    }
}

/// What Scalaris would print of an answer.
pub(super) fn term(form: &Form, (code, answer): &keys::Answer, replicas: u64) -> String {
    if *code == 200 {
        return match form {
            Form::Add { .. } => "{ok}".to_owned(),
            Form::Look { .. } if answer["value"].is_null() => "{fail,not_found}".to_owned(),
            // What the dashboard shows in part only.
            Form::Look { .. } if answer["value"]["whole"] == false => "{fail,too_long}".to_owned(),
            // A text in quotes is written alike in Erlang and JSON as far as it can be read at all.
            Form::Look { .. } => match answer["value"]["type"].as_str() {
                Some("string") => format!("{{ok,{}}}", answer["value"]["text"]),
                _ => format!("{{ok,{}}}", answer["value"]["text"].as_str().unwrap_or_default()),
            },
            Form::Delete { .. } => {
                let each = (0..replicas).map(|_| "ok").collect::<Vec<_>>().join(",");
                format!("{{ok,{replicas},[{each}]}}")
            }
        };
    }
    match (form, *code) {
        // Somebody else has deleted it, or it never was.
        (Form::Delete { .. }, _)
            if answer["present"]["value"] == Json::Null && answer.get("present").is_some() =>
        {
            let each = (0..replicas).map(|_| "undef").collect::<Vec<_>>().join(",");
            format!("{{ok,0,[{each}]}}")
        }
        (_, 503 | 504) => "{fail,timeout}".to_owned(),
        _ => "{fail,abort}".to_owned(),
    }
}

/// The page that says so.
pub(super) fn page(took: Duration, term: &str) -> String {
    let mut shown = String::with_capacity(term.len());
    for c in term.chars() {
        match c {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            c => shown.push(c),
        }
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>kvnode</title></head>\n\
         <body><pre>{:.3} ms: {shown}</pre><p><a href=\"/#keys\">The dashboard</a></p></body></html>\n",
        took.as_secs_f64() * 1000.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_as_browsers_and_curl_write_them() {
        let add = Form::Add { key: "a b&c".to_owned(), value: "ä = 100%".to_owned() };
        for body in [
            "key=a+b%26c&value=%C3%A4+%3D+100%25&type=addkey",
            "type=addkey&key=a%20b%26c&value=ä%20=%20100%",
        ] {
            assert_eq!(parse(body).expect(body), add);
        }
        assert_eq!(parse("key=k&type=querykey").expect("valid"), Form::Look { key: "k".to_owned() });
        assert_eq!(
            parse("key=k&timeout=2000&type=deletekey").expect("valid"),
            Form::Delete { key: "k".to_owned() }
        );
        for (body, reason) in [
            ("", "\"type\" is missing"),
            ("type=addkey&key=k", "\"value\" is missing"),
            ("type=querykey&key=", "empty"),
            ("type=querykey&key=%ff", "not UTF-8"),
            ("type=drop&key=k", "neither"),
        ] {
            let report = parse(body).expect_err(body);
            assert!(report.cause.contains(reason), "{body}: {}", report.cause);
        }
    }

    #[test]
    fn nothing_in_a_value_becomes_a_part_of_the_page() {
        let page = page(Duration::from_micros(1500), "{ok,\"</pre><script>&\"}");
        assert!(page.contains("<pre>1.500 ms: {ok,\"&lt;/pre&gt;&lt;script&gt;&amp;\"}</pre>"), "{page}");
    }

    #[test]
    fn what_a_browser_sends_is_refused() {
        let form = || {
            HeaderMap::from_iter([(
                header::CONTENT_TYPE,
                header::HeaderValue::from_static("application/x-www-form-urlencoded"),
            )])
        };
        assert!(check_sender(&form()).is_ok());
        for name in ["origin", "sec-fetch-site"] {
            let mut headers = form();
            headers.insert(name, header::HeaderValue::from_static("null"));
            assert!(check_sender(&headers).is_err(), "{name}");
        }
        assert!(check_sender(&HeaderMap::new()).is_err());
    }
}
