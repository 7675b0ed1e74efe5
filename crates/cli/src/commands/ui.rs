//! `palinode ui`

use std::io::{BufRead, IsTerminal, stdin};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use clap::Args as ClapArgs;
use palinode_ui::{Options, Server};

use crate::command_error::{Failure, words};
use crate::input::StoreArgs;
use crate::interrupt;
use crate::results::from_here;
use crate::terminal::{Style, complain, print};

/// The port where none is named; where it is taken, any that is free.
const PORT: u16 = 8642;

/// Show the store in a browser: runs as they go, runs side by side, reports, questions to models
///
/// Prints a link and serves the page until Ctrl-C. The page reads the store and writes nothing to it, works while a run is in
/// progress, and loads nothing from the network. The link opens it for one browser, once; press Enter for another link. On a
/// machine elsewhere, forward the port: ssh -L 8642:127.0.0.1:8642 HOST.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode ui
  palinode ui --store runs/.palinode --port 9000
  palinode ui --host 0.0.0.0 --name lab.example      reachable from other machines, unencrypted")]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,

    /// The port to listen at; 0 for any that is free [default: 8642, or any if that is taken]
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,

    /// The address to listen at. Any other than the default can be reached by other machines, and what goes over the network
    /// is not encrypted.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,

    /// A name under which browsers reach it, such as that of a proxy. May be given more than once. Addresses and localhost
    /// need not be named.
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
}

/// Serves the page.
pub fn run(args: &Args) -> Result<(), Failure> {
    // There has to be one.
    let store = args.store.look()?.root().to_owned();
    let ports = args.port.map_or_else(|| vec![PORT, 0], |port| vec![port]);
    let options = Options { store: store.clone(), ip: args.host, ports, names: args.name.clone(), words };
    let server =
        Server::bind(options).map_err(|error| error.hint("choose another port with --port; 0 is any free one"))?;
    server.start()?;
    let stop = interrupt::quietly();
    if server.is_open() {
        complain("note: other machines can reach this page, and what they send and get is not encrypted\n");
    }
    let style = Style::stdout();
    print(&format!("{}: {}\n", from_here(&store).display(), style.bold(&server.new_link()?)))?;
    if stdin().is_terminal() {
        print(&style.dim("the link opens the page once; press Enter for another link, Ctrl-C to end\n"))?;
        let server = Arc::clone(&server);
        let links = move || {
            let mut line = String::new();
            while stdin().lock().read_line(&mut line).is_ok_and(|read| read > 0) {
                if let Ok(link) = server.new_link() {
                    let _ = print(&format!("{link}\n"));
                }
            }
        };
        // Without it there is one link, which is no reason to end.
        let _ = thread::Builder::new().name("links".to_owned()).spawn(links);
    }
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
    }
    server.stop();
    Ok(())
}
