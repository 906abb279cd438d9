// The page of the model is made by the server; its header and footer are completed here.
import {loadCard} from "./api.js";
import {$} from "./dom.js";

loadCard().catch(error => { $("about-model").textContent = error.message; });
