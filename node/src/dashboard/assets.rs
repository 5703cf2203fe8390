//! The dashboard's files, in the binary.

/// A file and how it is served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asset {
    pub(super) path: &'static str,
    pub(super) kind: &'static str,
    pub(super) text: &'static str,
}

macro_rules! assets {
    ($($path:literal $file:literal $kind:ident;)*) => {
        pub(super) const ASSETS: &[Asset] = &[$(Asset {
            path: $path, kind: $kind, text: include_str!(concat!("../../assets/", $file)),
        }),*];
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

assets! {
    "/" "index.html" HTML;
    "/ui/app.css" "app.css" CSS;
    "/ui/icon.svg" "icon.svg" SVG;
    "/ui/app.js" "app.js" JS;
    "/ui/dom.js" "dom.js" JS;
    "/ui/live.js" "live.js" JS;
    "/ui/overview.js" "overview.js" JS;
    "/ui/ring.js" "ring.js" JS;
    "/ui/picture.js" "picture.js" JS;
    "/ui/keys.js" "keys.js" JS;
    "/ui/transact.js" "transact.js" JS;
    "/ui/value.js" "value.js" JS;
    "/ui/transactions.js" "transactions.js" JS;
    "/ui/node.js" "node.js" JS;
    "/ui/metrics.js" "metrics.js" JS;
    "/ui/chart.js" "chart.js" JS;
}

/// The file at a path.
pub(super) fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|a| a.path == path)
}

/// Where a page of Scalaris' dashboard is now.
pub(super) fn moved(path: &str) -> Option<&'static str> {
    Some(match path {
        "/index.yaws" | "/index.html" | "/gossip.yaws" | "/dc.yaws" | "/documentation.yaws" => "/#overview",
        "/ring.yaws" | "/indexed-ring.yaws" | "/vivaldi.yaws" => "/#ring",
        "/monitor.yaws" | "/monitor_client.yaws" | "/monitor_ring.yaws" | "/bench.yaws" => "/#metrics",
        "/node.yaws" | "/local.yaws" | "/debug.yaws" | "/logger.yaws" | "/processinfo.yaws"
        | "/processtree.yaws" => "/#node",
        "/pubsub.yaws" => "/#keys",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assets_are_small_refer_to_nothing_outside_and_hold_no_inline_script() {
        let size: usize = ASSETS.iter().map(|a| a.text.len()).sum();
        assert!(size <= 150 << 10, "{size} bytes even before compression");
        for a in ASSETS {
            let text = a.text.replace("http://www.w3.org/", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "{}", a.path);
            assert!(!text.contains("innerHTML") && !text.contains("eval("), "{}", a.path);
            let is_inline = a.kind == HTML && (text.contains(" style=") || text.contains(" onclick"));
            assert!(!is_inline, "{}", a.path);
        }
    }
}
