//! The ways through the router: whatever is done to addresses, what comes out is right.

use balance_lab::{Family, ready};

use crate::case::{Case, compare};
use crate::conversation::{Nat, Protocol};
use crate::scene::Shape;
use crate::shot::{back, forth};

#[test]
fn a_datagram_leaves_as_the_kernel_would_send_it() {
    if !ready() {
        return;
    }
    let way = (Nat::Masquerade, Protocol::Udp, Family::V4);
    compare(Shape::default(), &[Case::fast("datagrams", way, [forth(10), back(20), forth(0)])]);
}
