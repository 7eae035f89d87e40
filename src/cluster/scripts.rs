//! The Lua scripts that Redis runs. Each script is atomic and uses the clock of Redis, however many nodes call it at
//! once.

use fred::{error::Error, interfaces::LuaInterface, prelude::Client};

macro_rules! scripts {
    ($($name:ident)*) => {
        /// The hash by which Redis knows each script.
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
