//! IPv6 prefixes that the lab's ISPs delegate to the router.

use crate::Lab;
use crate::addresses::INTERNET_V6;

impl Lab {
    /// An ISP delegates a prefix to the router: it lets packets from it pass, and the internet's packets to it reach the
    /// router. What the router makes of it is the router's business.
    ///
    /// # Errors
    /// When it has done so already.
    pub fn delegate(&self, isp: &str, prefix: &str) -> anyhow::Result<()> {
        self.change(isp, prefix, "add")
    }

    /// Takes it back.
    ///
    /// # Errors
    /// When it has not delegated it.
    pub fn withdraw(&self, isp: &str, prefix: &str) -> anyhow::Result<()> {
        self.change(isp, prefix, "delete")
    }

    fn change(&self, isp: &str, prefix: &str, verb: &str) -> anyhow::Result<()> {
        let isp = self.isp(isp);
        isp.host().ip(&[format!("route {verb} {prefix} via {} dev router", isp.net.router_v6())])?;
        let element = format!("{verb} element inet count own_v6 {{ {prefix} }}");
        isp.host().feed("nft", &["-f", "-"], &element)?;
        let far = isp.net.far_v6();
        self.internet().ip(&[format!("route {verb} {prefix} via {far} src {INTERNET_V6}")])
    }
}
