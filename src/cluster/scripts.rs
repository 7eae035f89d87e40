//! The scripts that Redis runs: each is one step there, by its own clock, however many nodes ask at once.

use fred::{error::Error, interfaces::LuaInterface, prelude::Client};

macro_rules! scripts {
    ($($name:ident)*) => {
        /// Under which name Redis knows each.
        #[derive(Clone, Debug)]
        pub(super) struct Scripts {
            $(pub $name: String,)*
        }

        impl Scripts {
            pub async fn load(client: &Client) -> Result<Self, Error> {
                Ok(Self {
                    $($name: client
                        .script_load(concat!(
                            include_str!("scripts/alive.lua"),
                            include_str!(concat!("scripts/", stringify!($name), ".lua"))
                        ))
                        .await?,)*
                })
            }
        }
    };
}

scripts!(begin beat opened ended dashboard lost revoked);
